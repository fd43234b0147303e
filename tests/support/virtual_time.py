"""An event loop whose time passes only when nothing is left to do: hours take no time, and each run is like the other."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec

ParametersT = ParamSpec("ParametersT")

_BEGINNING = 1_000.0
_LONGEST_SECONDS = 24 * 3_600.0


class _Selector(selectors.SelectSelector):
    """Instead of waiting it moves the clock on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = _BEGINNING

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found:
            if timeout is None:
                raise RuntimeError("nothing is under way: what is waited for will never happen")
            self.now += timeout
        return found


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Knows no threads: what one of them does would come at any time, or never."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def run_in_virtual_time(scenario: Awaitable[None]) -> None:
    """Runs a scenario to its end; fails if a callback failed, or if a task is left behind."""
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


def in_virtual_time(
    test: Callable[ParametersT, Coroutine[Any, Any, None]],
) -> Callable[ParametersT, None]:
    """Makes a test of a coroutine, which then runs in a loop of its own, in virtual time."""

    @functools.wraps(test)
    def run(*args: ParametersT.args, **kwargs: ParametersT.kwargs) -> None:
        run_in_virtual_time(test(*args, **kwargs))

    return run
