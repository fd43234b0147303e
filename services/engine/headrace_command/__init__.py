"""The program `headrace`, as far as it can be interrupted while headrace is being imported.

To import what a command needs takes a good part of a second, and Python shows a traceback of whatever it was at when Ctrl-C came.
So this package stands beside `headrace`: nothing of that is imported before a signal is taken in order.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

EXIT_INTERRUPTED = 130
_TOLD = "Interrupted.\n"


def main() -> None:
    """The entry point of the program: runs the command, and ends with exit code 130 when it is interrupted."""
    # A SIGINT that the process was started to ignore, as shells have it for what runs in the background, stays ignored.
    python_has_it = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if python_has_it:
        signal.signal(signal.SIGINT, _end_at_once)
    from headrace.cli.main import main as command

    try:
        if python_has_it:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        command()
    except KeyboardInterrupt:
        sys.stderr.write(_TOLD)
        sys.exit(EXIT_INTERRUPTED)


def _end_at_once(_number: int, _frame: FrameType | None) -> NoReturn:
    """Nothing has begun that would have to be put in order."""
    os.write(2, _TOLD.encode())
    os._exit(EXIT_INTERRUPTED)
