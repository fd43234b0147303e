"""Notices from a thread when the event loop is blocked, and says by which job."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from pathlib import Path
from types import FrameType

from headrace.engine.partition import Work

_logger = logging.getLogger(__name__)

_BEAT_SECONDS = 0.25
_MOST_FRAMES = 20
_HERE = str(Path(__file__).parent)
_HEADRACE = str(Path(__file__).parents[1])
_EVENT_LOOP = str(Path(asyncio.__file__).parent)


class LoopWatch:
    """Warns once for each time that the event loop goes on with nothing for too long.

    A blocked loop renews no lease: whatever blocks it is killed with its engine when that is over.

    Args:
        limit: seconds after which a warning is due.

    Attributes:
        blocks: how often it was blocked for longer than that.
        longest: seconds of the longest time.
    """

    def __init__(self, limit: float = 1.0) -> None:
        self._limit = limit
        self.blocks = 0
        self.longest = 0.0
        self._beat_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop_thread = 0
        self._reported = False

    @property
    def silence(self) -> float:
        """Seconds since the loop last ran, whoever asks."""
        return time.monotonic() - self._beat_at

    def start(self) -> None:
        """Begins to watch the running loop; to be called in it."""
        self._loop_thread = threading.get_ident()
        self._beat_at = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(_BEAT_SECONDS, self._beat)
        self._thread = threading.Thread(target=self._watch, name="headrace-loop-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._ended.set()
        if self._thread is not None:
            self._thread.join(1)

    def _beat(self) -> None:
        now = time.monotonic()
        blocked = now - self._beat_at - _BEAT_SECONDS
        self._beat_at = now
        if blocked >= self._limit:
            self.blocks += 1
            self.longest = max(self.longest, blocked)
            # Who holds the interpreter lets no thread look; and a process that was stopped is like one that was blocked.
            seen = "" if self._reported else ", and this process could not see by what"
            _logger.warning("the event loop goes on: it was blocked for %.1f s%s", blocked, seen)
        self._reported = False
        self._timer = asyncio.get_running_loop().call_later(_BEAT_SECONDS, self._beat)

    def _watch(self) -> None:
        looked_at = time.monotonic()
        patience = self._limit + _BEAT_SECONDS
        while not self._ended.wait(_BEAT_SECONDS):
            now = time.monotonic()
            # When this thread did not run either, the loop is given its turn first.
            stood_still = now - looked_at > 2 * _BEAT_SECONDS
            looked_at = now
            if not self._reported and not stood_still and now - self._beat_at >= patience:
                self._reported = True
                self._report(now - self._beat_at)

    def _report(self, seconds: float) -> None:
        frame = sys._current_frames().get(self._loop_thread)
        work = _work_of(frame)
        who = "by no job" if work is None else f"by job {work.key.decode(errors='replace')} of {work.partition.recovery.worker}"
        stack = "".join(traceback.format_list(_stack_of(frame))) if frame is not None else "no stack"
        _logger.warning(
            "the event loop has been blocked for %.1f s %s; leases lapse meanwhile. It stands at:\n%s", seconds, who, stack
        )


def _stack_of(frame: FrameType) -> traceback.StackSummary:
    """Where a frame stands, from the first that is the worker's own: above it are the event loop, the command and the engine."""
    frames = list(traceback.walk_stack(frame))[::-1]
    names = [each.f_code.co_filename for each, _ in frames]
    below = max((number for number, name in enumerate(names) if name.startswith(_EVENT_LOOP)), default=-1) + 1
    workers = next((number for number in range(below, len(names)) if not names[number].startswith(_HEADRACE)), below)
    # The loop itself, where it is what takes so long.
    chosen = frames[workers:] or frames
    return traceback.StackSummary.extract(iter(chosen[-_MOST_FRAMES:]))


def _work_of(frame: FrameType | None) -> Work | None:
    """The job whose attempt runs in this frame, or in one that called it."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(_HERE):
            work = frame.f_locals.get("work")
            if isinstance(work, Work):
                return work
        frame = frame.f_back
    return None
