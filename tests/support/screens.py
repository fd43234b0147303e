"""Terminals of commands, as a user looks at them."""

from __future__ import annotations

import asyncio
import os
import pty
import re

from support.engines import eventually


class Screen:
    """A terminal, and what a command has written to it, without colours and movements.

    Attributes:
        of_command: the end that is given to the command.
    """

    def __init__(self) -> None:
        self._own, self.of_command = pty.openpty()
        self._shown = b""
        asyncio.get_running_loop().add_reader(self._own, self._read)

    def _read(self) -> None:
        self._shown += os.read(self._own, 65_536)

    async def until(self, pattern: str, *, within: float) -> re.Match[str]:
        """Waits until something like this was shown, for so many seconds at most."""

        async def found() -> bool:
            return re.search(pattern, self.text) is not None

        await eventually(found, within=within)
        match = re.search(pattern, self.text)
        assert match is not None
        return match

    @property
    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self._shown.decode(errors="replace"))

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._own)
        for each in (self._own, self.of_command):
            os.close(each)
