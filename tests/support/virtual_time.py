"""Tests that run in virtual time: hours pass in no time, and each run is like the other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

from headrace.testing.virtual_time import run_in_virtual_time

ParametersT = ParamSpec("ParametersT")

__all__ = ["in_virtual_time", "run_in_virtual_time"]


def in_virtual_time(
    test: Callable[ParametersT, Coroutine[Any, Any, None]],
) -> Callable[ParametersT, None]:
    """Makes a test of a coroutine, which then runs in a loop of its own, in virtual time."""

    @functools.wraps(test)
    def run(*args: ParametersT.args, **kwargs: ParametersT.kwargs) -> None:
        run_in_virtual_time(test(*args, **kwargs))

    return run
