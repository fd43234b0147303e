"""What a principal does once at a time, since all share what it takes: whoever asks for it again waits, and nobody else does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headrace_gateway.access.principal import Principal


class _Line:
    """Those of one principal who have the turn, or wait for it."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.length = 0


class Turns:
    """Gives turns, to each principal one at a time. Those of one tenant and subject are one, whatever their credentials."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], _Line] = {}

    def __len__(self) -> int:
        return len(self._lines)

    @asynccontextmanager
    async def turn(self, principal: Principal) -> AsyncIterator[None]:
        """The principal's turn, for as long as the block lasts; it begins when those before it have ended."""
        key = (principal.tenant, principal.subject)
        line = self._lines.setdefault(key, _Line())
        line.length += 1
        try:
            async with line.turn:
                yield
        finally:
            line.length -= 1
            if not line.length:
                del self._lines[key]
