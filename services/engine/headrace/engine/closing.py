"""How long a stop may wait for the brokers, all of its steps together: they may be away, and it ends all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

_SECONDS = 5.0
_MOMENT_SECONDS = 0.01

NEEDED_SECONDS = 8.0
"""What a stop takes after its attempts have ended while the brokers are away, the time to cut off its clients included."""


class Closing:
    """The time that the steps of a stop may take between them, when its attempts have ended.

    Each step would wait for some seconds of its own. Where the brokers answer, none needs them. A broker that is merely slow
    still gets the releases, without which others would wait for the lease: so no step may use up more than half of what is left.

    Attributes:
        in_vain: whether a step has used up its time: then the brokers are away, or as good as.
    """

    def __init__(self, seconds: float = _SECONDS) -> None:
        self._left = seconds
        self.in_vain = False

    @contextmanager
    def step(self, seconds: float) -> Iterator[float]:
        """How long the next step may wait, which would wait for so many seconds by itself."""
        given = min(seconds, self._left / 2)
        begun = asyncio.get_running_loop().time()
        try:
            yield given
        finally:
            took = asyncio.get_running_loop().time() - begun
            self._left = max(self._left - took, 0.0)
            self.in_vain = self.in_vain or took >= given - _MOMENT_SECONDS
