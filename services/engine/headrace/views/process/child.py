"""The process that keeps a view, as its parent has it in hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from headrace.views.process.frames import Connection


class Child(Protocol):
    """A process that was started; it ends when its connection does."""

    @property
    def connection(self) -> Connection:
        """To it: it waits for `Kind.BEGIN`."""

    def kill(self) -> None:
        """Ends it at once, unless it has ended."""

    async def ended(self) -> str:
        """Waits until it has ended, and tells how."""


StartChild = Callable[[], Awaitable[Child]]
