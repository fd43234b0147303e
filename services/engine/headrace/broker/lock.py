"""One broker at a time on the same data, whoever starts it, and whoever has died."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.errors import LocalBrokerInUse

# How long a predecessor whose owner has died may take to end.
LOCK_SECONDS = 15.0
POLL_SECONDS = 0.05


@contextmanager
def held_lock(directory: Path) -> Iterator[int]:
    """Hold the lock on a node's directory, and note its owner.

    Java inherits the descriptor, so that the lock is held for exactly as long as Java lives, whatever becomes of us.
    """
    path = directory / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                owner = int(os.pread(descriptor, 20, 0) or b"0")
                # A broker whose owner died is about to be stopped; one whose owner lives is not ours to wait for.
                if time.monotonic() >= deadline or _process_exists(owner):
                    raise LocalBrokerInUse(
                        f"The process {owner} runs a broker on {directory} already, which does not answer yet, or "
                        "is not for others. Wait until it does, end that process, or have data of your own: with another "
                        "HEADRACE_DATA_DIRECTORY, or --data-directory of `headrace broker`."
                    ) from None
                time.sleep(POLL_SECONDS)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _process_exists(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
