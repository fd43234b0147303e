"""The attempts that run in an engine now, and who waits for their ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from headrace.engine.closing import NEEDED_SECONDS
from headrace.engine.partition import Work

_LOOK_SECONDS = 0.25
_MOMENT_SECONDS = 0.01


class Running:
    """The attempts of one worker that run now.

    Args:
        is_stuck: whether only the end of the process ends an attempt. Nobody waits for such a one.
    """

    def __init__(self, is_stuck: Callable[[Work], bool]) -> None:
        self._is_stuck = is_stuck
        self._works: set[Work] = set()
        self._waited_for = False
        self._none = asyncio.Event()

    def __len__(self) -> int:
        return len(self._works)

    def add(self, work: Work) -> None:
        """An attempt begins."""
        self._works.add(work)

    def remove(self, work: Work) -> None:
        """An attempt is over."""
        self._works.discard(work)
        if self._waited_for:
            self.look()

    def in_order(self) -> list[Work]:
        """The jobs, by partition and offset."""
        return sorted(self._works, key=lambda work: (work.partition.source, work.offset))

    @property
    def will_end(self) -> bool:
        """Whether attempts run that may end by themselves."""
        return not all(self._is_stuck(work) for work in self._works)

    def look(self) -> None:
        """One may have turned out to be stuck."""
        if not self.will_end:
            self._none.set()

    async def wait(self, seconds: float) -> None:
        """Waits until none runs but those that are stuck, and no longer than so many seconds."""
        self._waited_for = True
        self._none.clear()
        self.look()
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._none.wait()

    async def wait_while(self, seconds: float, away: Callable[[], bool]) -> None:
        """Waits as `wait` does, for the grace of a stop.

        Args:
            away: whether the brokers do not answer. Then what has to be done afterwards takes long, at the attempts' cost.
        """
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + seconds
        await self.wait(seconds - NEEDED_SECONDS)
        # A wait that is too short to move the clock on would never end.
        while self.will_end and (left := ends_at - loop.time()) > _MOMENT_SECONDS and not away():
            await self.wait(min(left, _LOOK_SECONDS))
