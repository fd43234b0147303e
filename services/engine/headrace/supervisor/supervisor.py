"""Runs engines as child processes: starts another when one ends, and holds each to its lease (rules H3 and R2)."""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import subprocess
import tempfile
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from headrace.supervisor.backoff import Backoff
from headrace.supervisor.child import EngineChild
from headrace.supervisor.told import boot_time

_logger = logging.getLogger("headrace.supervisor")

# Nothing wakes a process when its machine goes on after a sleep: so it looks at its clock as often as this.
_LOOK_SECONDS = 0.5
_GROUP_LOOK_SECONDS = 0.02
# Who looks that much later than it wanted to was stopped itself, and perhaps the whole machine with it.
_LATE_SECONDS = 2.0
_EXCUSED_SECONDS = 5.0
# What an engine may take for its end beside the grace of its jobs.
_END_SECONDS = 30.0
_RITES_SECONDS = 60.0
_USAGE = 2


@dataclass(slots=True)
class _Slot:
    """The place of one engine.

    Attributes:
        start_at: when the next one is to be started, by `boot_time`.
    """

    number: int
    backoff: Backoff = field(default_factory=Backoff)
    child: EngineChild | None = None
    start_at: float = 0.0


class Supervisor:
    """Keeps so many engines running until a signal asks for the end.

    Args:
        engine: the command that starts an engine.
        arguments: of that command.
        rites: the command that releases what a dead engine held; it gets a JSON object on its standard input.
        processes: how many engines are wanted.
    """

    def __init__(self, engine: Sequence[str], arguments: Sequence[str], rites: Sequence[str], processes: int) -> None:
        self._engine = list(engine), list(arguments)
        self._rites_command = list(rites)
        self._slots = [_Slot(number) for number in range(processes)]
        self._graves: list[EngineChild] = []
        self._rites: dict[int, tuple[subprocess.Popen[bytes], float]] = {}
        self._signals: deque[signal.Signals] = deque()
        self._selector = selectors.DefaultSelector()
        self._asked = 0
        self._was_ready = False
        self._exit_code = 0
        self._looked_at = boot_time()
        self._stood_still_at = -_EXCUSED_SECONDS

    def run(self) -> int:
        """Returns when all engines have ended after a signal, with the exit code.

        That of the engine when the first one cannot start, as with a setting that is wrong: another one could not, either.
        """
        wake, wake_write = os.pipe()
        for end in (wake, wake_write):
            os.set_blocking(end, False)
        self._selector.register(wake, selectors.EVENT_READ)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # A SIGHUP that the process was started to ignore, as `nohup` has it, stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN or number is not signal.SIGHUP:
                signal.signal(number, lambda received, _: self._signals.append(signal.Signals(received)))
        while not self._is_over():
            self._start_due()
            self._wait(wake)
            self._reap()
            self._obey()
            self._enforce()
            self._bury()
        return self._exit_code

    def _is_over(self) -> bool:
        return bool(self._asked) and not (self._graves or self._rites or any(slot.child for slot in self._slots))

    @property
    def _children(self) -> list[EngineChild]:
        return [slot.child for slot in self._slots if slot.child is not None]

    def _wait(self, wake: int) -> None:
        """Waits for a signal, a report or the next thing that is due; takes in all reports."""
        # Of one that is being killed nothing is due any more but its end, which is a signal.
        alive = [child for child in self._children if not child.is_late]
        due = [child.told.until for child in alive if child.told.until is not None]
        due += [child.kill_at for child in alive if child.kill_at is not None]
        due += [slot.start_at for slot in self._slots if slot.child is None and not self._asked]
        seconds = min([_LOOK_SECONDS, *(at - boot_time() for at in due)])
        if self._graves:
            seconds = min(seconds, _GROUP_LOOK_SECONDS)
        before = boot_time()
        ready = self._selector.select(max(seconds, 0.0))
        now = boot_time()
        if now - before > seconds + _LATE_SECONDS or before - self._looked_at > _LATE_SECONDS:
            self._stood_still_at = now
        self._looked_at = now
        for key, _ in ready:
            if key.fd == wake:
                with suppress(BlockingIOError):
                    os.read(wake, 512)
            elif not key.data.read():
                self._selector.unregister(key.fd)
        self._was_ready = self._was_ready or any(child.told.ready for child in self._children)

    # --- starting -------------------------------------------------------------------------------------------------------

    def _start_due(self) -> None:
        for slot in self._slots:
            if slot.child is None and not self._asked and slot.start_at <= boot_time():
                try:
                    slot.child = EngineChild(*self._engine, slot.number)
                except OSError as error:
                    slot.start_at = boot_time() + slot.backoff.after(0.0)
                    _logger.error("an engine could not be started, and is tried again: %s", error)
                else:
                    self._selector.register(slot.child.reports, selectors.EVENT_READ, slot.child)
                    _logger.debug("engine process %d is started", slot.child.pid)

    # --- ending ---------------------------------------------------------------------------------------------------------

    def _obey(self) -> None:
        while self._signals:
            number = self._signals.popleft()
            self._asked += 1
            for child in self._children:
                if self._asked > 2:
                    child.kill_group()
                child.send(number)
                child.kill_at = boot_time() + _END_SECONDS + (child.told.grace if self._asked == 1 else 0.0)

    def _enforce(self) -> None:
        """Rule H3: at its deadline an engine is killed with all its children, whether it runs, hangs or is stopped."""
        now = boot_time()
        for child in self._children:
            if child.told.until is not None and now >= child.told.until:
                # Who was stopped itself may be woken with none of the reports that came meanwhile.
                child.read()
            lease_is_over = child.told.until is not None and now >= child.told.until
            if child.is_late or not (lease_is_over or (child.kill_at is not None and now >= child.kill_at)):
                continue
            child.is_late = True
            child.kill_group()
            _logger.error(
                "engine process %d is killed: %s",
                child.pid,
                "its lease is over and it has not said that its jobs have stopped" if lease_is_over else "it does not end",
            )

    def _reap(self) -> None:
        """Waits for whatever has ended: engines, helpers, and orphans of engines, which come to the nearest reaper."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            code = os.waitstatus_to_exitcode(status)
            if pid in self._rites:
                process, _ = self._rites.pop(pid)
                process.returncode = code
            for slot in self._slots:
                if slot.child is not None and slot.child.pid == pid:
                    self._ended(slot, slot.child, code)

    def _ended(self, slot: _Slot, child: EngineChild, code: int) -> None:
        child.ended(code)
        child.excused = boot_time() - self._stood_still_at < _EXCUSED_SECONDS
        with suppress(KeyError):
            self._selector.unregister(child.reports)
        self._was_ready = self._was_ready or child.told.ready
        slot.child = None
        self._graves.append(child)
        if self._asked:
            # Before it takes signals, and again when it has said farewell, a signal that asks for the end is the end of it.
            takes_none = not child.told.engine or child.told.farewell
            in_order = takes_none and code in (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)
            self._exit_code = self._exit_code or (0 if in_order else code if code >= 0 else 128 - code)
        elif code == _USAGE and not self._was_ready:
            self._exit_code = code
            self._signals.append(signal.SIGTERM)
        else:
            seconds = slot.backoff.after(boot_time() - child.started_at)
            slot.start_at = boot_time() + seconds
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            _logger.warning("engine process %d has ended with %s; another starts in %g s", child.pid, how, seconds)

    def _bury(self) -> None:
        """Rule R2: when nothing is left of an engine's process group, what it held is released."""
        for child in list(self._graves):
            if child.kill_group():
                self._graves.remove(child)
                child.close()
                self._begin_rites(child)
        for pid, (process, deadline) in list(self._rites.items()):
            if boot_time() >= deadline:
                _logger.warning("what an engine held could not be released in time")
                process.kill()
                self._rites[pid] = process, deadline + _RITES_SECONDS

    def _begin_rites(self, child: EngineChild) -> None:
        told = child.told
        if not told.engine or not (told.claims or told.members):
            return
        # Who ends by its own will, or stood still with all of its machine, is no sign of a job that kills.
        died = not told.farewell and not child.excused
        last_will = {
            **told.engine,
            "reason": "died" if died else "stopped",
            "claims": [list(claim) for claim in told.claims],
            "members": told.members,
        }
        with tempfile.TemporaryFile() as file:
            file.write(json.dumps(last_will).encode())
            file.seek(0)
            try:
                process = subprocess.Popen(self._rites_command, stdin=file, start_new_session=True)
            except OSError as error:
                _logger.error("what engine process %d held cannot be released: %s", child.pid, error)
                return
        self._rites[process.pid] = process, boot_time() + _RITES_SECONDS
