"""Whether a call's number is decided by the program alone, so that another attempt gives the same call the same one."""

from __future__ import annotations

import asyncio
import threading


class CallOrder:
    """The order of calls that stand side by side: all of an attempt, or all within one of these.

    Sure is the place of calls that one task makes, also at once for others to wait for, as in a list for `asyncio.gather`. Tasks
    that call by themselves may do so in another order the next time. And once two calls were under way at a time, and one of them
    has ended, whatever is called next may be so because that one was the first. Whoever uses this holds a lock.
    """

    def __init__(self) -> None:
        self._under_way = 0
        self._has_raced = False
        self._callers: dict[str, object] = {}
        self._unsure: set[str] = set()

    def call(self, name: str) -> None:
        """A call takes its place."""
        caller = _caller()
        if self._has_raced or self._callers.setdefault(name, caller) is not caller:
            self._unsure.add(name)

    def begin(self) -> None:
        """One asks."""
        self._under_way += 1

    def end(self) -> None:
        """It has its answer, or has failed."""
        self._under_way -= 1
        self._has_raced = self._has_raced or self._under_way > 0

    def is_sure(self, name: str) -> bool:
        """Whether the places of the calls of that name are sure, as far as is known now."""
        return name not in self._unsure


def _caller() -> object:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        return threading.current_thread()
