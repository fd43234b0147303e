"""Making the ahead-of-time cache: in the background of a running broker, or on request."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
from pathlib import Path

from headrace.broker.aot import AheadOfTimeCache
from headrace.broker.configuration import JavaCommand, LocalBrokerOptions, java_arguments
from headrace.broker.installation import Installation
from headrace.broker.jars import unusable_cache
from headrace.broker.node import MAIN_CLASS, JavaSettings, LocalNode, NodeIdentity
from headrace.broker.process import ProcessOptions, WatchedProcess
from headrace.broker.storage import new_id
from headrace.errors import LocalBrokerError

NICENESS = 15
MAKING_SECONDS = 300.0
POLL_SECONDS = 0.1

logger = logging.getLogger(__name__)


def train(cache: AheadOfTimeCache, installation: Installation, cancelled: threading.Event | None = None) -> bool:
    """Make the cache: record a broker's start, then have Java turn the record into a cache.

    Args:
        cache: where it goes.
        installation: what it is made for.
        cancelled: when set, the work stops soon and leaves nothing.

    Returns:
        Whether a usable cache is there now; False when cancelled, or when another process is making it.

    Raises:
        LocalBrokerError: the recorded broker did not come up, or Java made no cache.
    """
    with cache.making() as mine:
        if not mine:
            return False
        if cache.is_usable():
            return True
        # Whoever holds the lock is alone: what lies here is from one that was killed.
        for left_over in cache.path.parent.glob(".training-*"):
            shutil.rmtree(left_over, ignore_errors=True)
        # On the cache's file system, so that the last step is a rename.
        with tempfile.TemporaryDirectory(prefix=".training-", dir=cache.path.parent, ignore_cleanup_errors=True) as name:
            return _Training(Path(name), installation, cancelled or threading.Event()).run(cache)


def wait_for_cache(cache: AheadOfTimeCache, installation: Installation) -> None:
    """Return when the cache is there: made here, or by a process that is at it already.

    Raises:
        LocalBrokerError: it cannot be made.
    """
    deadline = time.monotonic() + MAKING_SECONDS
    try:
        while not train(cache, installation):
            if time.monotonic() >= deadline:
                raise LocalBrokerError(f"Another process has been making {cache.path} for too long; end it and try again.")
            time.sleep(POLL_SECONDS)
    except OSError as error:
        raise unusable_cache(cache.path.parent, error) from error


class _Training:
    """One making of the cache, in a directory of its own."""

    def __init__(self, directory: Path, installation: Installation, cancelled: threading.Event) -> None:
        self._directory = directory
        self._installation = installation
        self._cancelled = cancelled
        self._record = directory / "start.aotconf"
        self._made = directory / "made.aot"

    def run(self, cache: AheadOfTimeCache) -> bool:
        node = LocalNode(
            NodeIdentity(node_id=1, cluster_id=new_id(), directory=self._directory / "node", removed_with_owner=self._directory),
            self._installation,
            LocalBrokerOptions(),
            JavaSettings(
                flags=("-XX:AOTMode=record", f"-XX:AOTConfiguration={self._record}"),
                niceness=NICENESS,
                # It writes the record as it ends; cut short, that is of no use.
                stop_seconds=MAKING_SECONDS,
            ),
        )
        try:
            node.reserve_ports()
            node.launch({1: node.controller_port})
            if not node.wait_until_ready(given_up=self._cancelled.is_set):
                if self._cancelled.is_set():
                    return False
                raise LocalBrokerError(node.failure(ended_by_itself=not node.running))
            # Java writes the record when it ends in order.
            node.request_stop()
            if self._wait(node) is None:
                return False
        finally:
            node.kill()
            node.close()
        return self._make(cache)

    def _make(self, cache: AheadOfTimeCache) -> bool:
        command = java_arguments(
            JavaCommand(
                java=self._installation.java,
                jars=self._installation.jars,
                heap_megabytes=LocalBrokerOptions().heap_megabytes,
                directory=self._directory / "node",
                flags=(
                    "-XX:AOTMode=create",
                    f"-XX:AOTConfiguration={self._record}",
                    f"-XX:AOTCache={self._made}",
                ),
            )
        )
        output = self._directory / "make.log"
        maker = WatchedProcess(
            [*command, MAIN_CLASS],
            ProcessOptions(output=output, removed=self._directory, niceness=NICENESS),
        )
        try:
            code = self._wait(maker)
        finally:
            maker.kill()
        if code is None:
            return False
        if not self._made.exists():
            end = output.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise LocalBrokerError(f"Java made no ahead-of-time cache (exit code {code}):\n{end}")
        cache.adopt(self._made)
        return True

    def _wait(self, program: LocalNode | WatchedProcess) -> int | None:
        """The exit code, or None when cancelled meanwhile."""
        deadline = time.monotonic() + MAKING_SECONDS
        while not self._cancelled.is_set():
            if (code := program.wait(POLL_SECONDS)) is not None:
                return code
            if time.monotonic() >= deadline:
                raise LocalBrokerError("Making the ahead-of-time cache takes too long.")
        return None


class BackgroundTraining:
    """Makes the cache while the caller does something else. Its failure is logged: a broker works without a cache."""

    def __init__(self, cache: AheadOfTimeCache, installation: Installation) -> None:
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(cache, installation), name="headrace-aot-training", daemon=True)
        self._thread.start()

    def _run(self, cache: AheadOfTimeCache, installation: Installation) -> None:
        try:
            train(cache, installation, self._cancelled)
        except (LocalBrokerError, OSError) as error:
            logger.warning("no ahead-of-time cache was made, starts stay slower: %s", error)

    def cancel(self) -> None:
        """Stop the work, if it still goes on, and wait until nothing of it is left."""
        self._cancelled.set()
        self._thread.join()
