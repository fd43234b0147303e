"""What running jobs say of how far they are, written down at most once a second for each."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from headrace.core.snapshots import shorten
from headrace.core.timestamps import format_timestamp
from headrace.engine.guarding import Guard
from headrace.engine.partition import Phase, Work

_APART_SECONDS = 1.0
_TEXT_LIMIT_BYTES: Final = 1_000


@dataclass(slots=True)
class _Told:
    """What one attempt has said.

    Attributes:
        unwritten: what it said last, if that is not written down.
        written_at: when something was handed over to be written, by the loop's clock.
        under_way: whether that is not acknowledged.
        awaited: whether it will be looked at again.
    """

    attempt: int
    written_at: float
    unwritten: Mapping[str, Any] | None = None
    under_way: bool = False
    awaited: bool = False


class ProgressReports:
    """Takes what attempts say, from any thread, and hands over the newest of it when it may be written.

    Args:
        now: milliseconds since the Unix epoch.
        write: writes down how far an attempt is that runs; `acknowledged` must follow.
        guard: ends the engine by a fault of its own.

    Attributes:
        told: has an entry for every running attempt that said something, and is empty as a rule.
    """

    def __init__(self, now: Callable[[], int], write: Callable[[Work, Mapping[str, Any]], None], guard: Guard) -> None:
        self._look_later = guard(self._look)
        self._now = now
        self._write = write
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self.told: dict[Work, _Told] = {}

    def report(self, work: Work, attempt: int, fraction: float, text: str | None) -> None:
        """An attempt says how far it is; called from any thread. What was said before and not written is forgotten."""
        progress: dict[str, Any] = {"fraction": float(fraction)}
        if text is not None:
            progress["text"] = shorten(str(text).encode(errors="replace").decode(), _TEXT_LIMIT_BYTES)
        progress["at"] = format_timestamp(self._now())
        with self._lock:
            told = self.told.get(work)
            if told is None or told.attempt < attempt:
                # The record of the attempt before may have been written a moment ago.
                since = float("-inf") if attempt == 1 else self._loop.time()
                told = self.told[work] = _Told(attempt, since)
            elif told.attempt > attempt:
                return
            told.unwritten = progress
            awaited, told.awaited = told.awaited, True
        if not awaited:
            with contextlib.suppress(RuntimeError):  # the loop is closed: a thread has outlived its engine
                self._loop.call_soon_threadsafe(self._look_later, work)

    def end(self, work: Work) -> Mapping[str, Any] | None:
        """The attempt is over: what it said last, if that is not written down."""
        with self._lock:
            told = self.told.pop(work, None)
        return told.unwritten if told is not None and told.attempt == work.state.fields["attempt"] else None

    def acknowledged(self, works: Iterable[Work]) -> None:
        """What was handed over of these is in the log: they may write again."""
        for work in works:
            if (told := self.told.get(work)) is not None:
                told.under_way = False
                if told.awaited:
                    self._look(work)

    def _look(self, work: Work) -> None:
        told = self.told.get(work)
        if told is None or told.under_way:
            return
        if work.phase is not Phase.RUNNING or not work.partition.live or told.attempt != work.state.fields["attempt"]:
            self.end(work)  # said by what goes on where its attempt is over
            return
        now = self._loop.time()
        if (wait := told.written_at + _APART_SECONDS - now) > 0:
            self._loop.call_later(wait, self._look_later, work)
            return
        with self._lock:
            progress, told.unwritten, told.awaited = told.unwritten, None, False
        if progress is not None:
            told.written_at, told.under_way = now, True
            self._write(work, progress)
