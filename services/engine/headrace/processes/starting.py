"""Starting a child process with which its parent speaks over a pair of sockets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
PARENTS_SIGNALS: Final = tuple(signal.Signals[name] for name in _NAMES if hasattr(signal, name))
"""Ctrl-C, and what is sent to the whole process group, are for the parent: it says when its children end."""


def start_child(main: str, descriptor: int, *, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Starts Python as this process runs it.

    Args:
        main: `module:function` to be called there, with the descriptor and this process's id.
        descriptor: the child's end of the sockets.
        environment: this process's own when left out.
    """
    module, _, function = main.partition(":")
    code = f"import sys; sys.path[:] = {sys.path!r}; from {module} import {function}; {function}({descriptor}, {os.getpid()})"
    command = [sys.executable, *subprocess._args_from_interpreter_flags(), "-c", code]  # type: ignore[attr-defined]
    # Until it has handlers of its own, what the terminal sends to the whole group waits.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PARENTS_SIGNALS)
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(descriptor,), env=environment)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals_to_parent() -> None:
    """From now on, in a child, its parent's signals do nothing."""
    for number in PARENTS_SIGNALS:
        # A handler that does nothing, where ignoring them would be passed on to whatever programs are started from here.
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PARENTS_SIGNALS)


def how_it_ended(exit_code: int | None) -> str:
    """What a child did, for the log: `was killed by signal 9 (SIGKILL), ...`."""
    if exit_code is None:
        return "died"
    if exit_code >= 0:
        return f"ended with exit code {exit_code}, and said nothing of it"
    try:
        name = f" ({signal.Signals(-exit_code).name})"
    except ValueError:
        name = ""
    hint = ", as the system does when memory runs out" if -exit_code == signal.SIGKILL else ""
    return f"was killed by signal {-exit_code}{name}{hint}"
