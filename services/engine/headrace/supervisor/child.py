"""An engine as a child process: in a session of its own, so that it and all its children can be killed together."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from headrace.supervisor.told import Told, boot_time

_READ_BYTES = 65_536


class EngineChild:
    """A running engine, or what is left of its process group.

    Args:
        command: starts an engine; where to report, and whose end to notice, is added to it, and then the arguments.

    Attributes:
        pid: of the engine, and of its process group.
        told: the newest that it has told.
        reports: the reading end of its reports.
        started_at: by `boot_time`.
        exit_code: negative for a signal; None while it runs.
        is_late: whether it was killed because its lease was over.
        kill_at: when it is killed though no lease is over: it was asked to end long before.
        excused: whether it ended when the supervisor itself, and so perhaps the whole machine, had stood still.
    """

    def __init__(self, command: Sequence[str], arguments: Sequence[str], number: int) -> None:
        self.reports, report_to = os.pipe()
        life, self._life = os.pipe()
        try:
            self._process = subprocess.Popen(
                [*command, "--supervised", f"{number},{report_to},{life}", *arguments],
                pass_fds=(report_to, life),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            self._close(self.reports, self._life)
            raise
        finally:
            self._close(report_to, life)
        os.set_blocking(self.reports, False)
        self.pid = self._process.pid
        self.told = Told()
        self.started_at = boot_time()
        self.exit_code: int | None = None
        self.is_late = False
        self.kill_at: float | None = None
        self.excused = False

    def read(self) -> bool:
        """Takes in what it has told; False when it tells nothing more."""
        while True:
            try:
                data = os.read(self.reports, _READ_BYTES)
            except BlockingIOError:
                return True
            if not data:
                return False
            self.told.take(data)

    def ended(self, exit_code: int) -> None:
        """It was waited for."""
        self.exit_code = self._process.returncode = exit_code
        self.read()

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the engine alone."""
        if self.exit_code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill_group(self) -> bool:
        """Kills the engine and all that it has started; tells whether nothing is left of them.

        A child that left the session of its engine is not found.
        """
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return self.exit_code is not None
        except PermissionError:  # as macOS says of processes that only wait to be waited for
            return False
        return False

    def close(self) -> None:
        """Lets go of the pipes."""
        self._close(self.reports, self._life)

    @staticmethod
    def _close(*descriptors: int) -> None:
        for descriptor in descriptors:
            os.close(descriptor)
