"""An event loop whose time passes only when nothing is left to do: hours take no time, and each run is like the other."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any

_BEGINNING = 1_000.0
_LONGEST_SECONDS = 24 * 3_600.0


class _Selector(selectors.SelectSelector):
    """Instead of waiting it moves the clock on. It never looks at the outside world, of which nothing can come."""

    def __init__(self) -> None:
        super().__init__()
        self.now = _BEGINNING

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            found = super().select(0)
            if not found:
                raise RuntimeError("nothing is under way: what is waited for will never happen")
            return found
        self.now += timeout
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Knows no threads: what one of them does would come at any time, or never. What is given to one is done at once."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Seconds since some moment, by the virtual clock."""
        return self._virtual.now

    def run_in_executor(  # type: ignore[override]  # its signature is more exact
        self, _executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Calls the function here and now: a thread would take its time by another clock."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def run_in_virtual_time(scenario: Awaitable[None]) -> None:
    """Runs a scenario to its end.

    Raises:
        AssertionError: a callback failed, or a task is left behind.
        RuntimeError: it waits for what will never happen.
        TimeoutError: it takes longer than a day.
    """
    loop = VirtualTimeLoop()
    failures: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: failures.append(context))

    async def bounded() -> None:
        async with asyncio.timeout(_LONGEST_SECONDS):
            await scenario

    try:
        loop.run_until_complete(bounded())
        left = asyncio.all_tasks(loop)
        assert not left, f"still running at the end: {left}"
        assert not failures, failures
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
            loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
