"""What the process that keeps a view and its parent say to each other: frames over a pair of sockets.

A frame is a kind, a length, and plain data as `marshal` has it: both ends are the same Python.
"""

from __future__ import annotations

import asyncio
import marshal
import struct
from contextlib import suppress
from enum import IntEnum
from typing import Any, Final, NamedTuple

_HEADER: Final = struct.Struct(">BI")


class Kind(IntEnum):
    """What a frame is, and what it holds."""

    SETTINGS = 1
    """To the child, first of all: settings by name, and the levels of the parent's loggers."""
    BEGIN = 2
    """To the child: the path of the file."""
    WORKERS = 3
    """To the child: the names of the workers that are defined, and whether these are all that there were at the start."""
    LOOK_FOR = 4
    """To the child: the name of a worker whose topic is to be followed though it may not be defined."""
    REQUEST = 5
    """To the child: a number, what is asked for, and its arguments."""
    CANCEL = 6
    """To the child: the number of a request whose answer nobody waits for any more."""
    RELEASED = 7
    """To the child: nothing of the file is open in the parent."""
    END = 8
    """To the child: it is to close the file, and end."""
    OPENED = 9
    """From the child: the path of the file; from now on it takes requests."""
    FAILED = 10
    """From the child, which ends: the class and the text of the error because of which there is no file."""
    RELEASE = 11
    """From the child: the file is to be made anew, and read by nobody."""
    RESUME = 12
    """From the child: it is made, at this path."""
    STANDING = 13
    """From the child: what `Teller` has."""
    ANSWER = 14
    """From the child: the number of a request, and None, or the class and the text of an error."""
    LOG = 15
    """From the child: what it logs, as JSON."""


class Frame(NamedTuple):
    """A frame that came."""

    kind: Kind
    content: Any


class Connection:
    """One end of the sockets. For the event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._head: tuple[int, int] | None = None

    async def read(self) -> Frame | None:
        """The next frame; None when the other end is gone. One that is cancelled loses nothing."""
        try:
            if self._head is None:
                self._head = _HEADER.unpack(await self._reader.readexactly(_HEADER.size))
            kind, length = self._head
            content = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        self._head = None
        return Frame(Kind(kind), marshal.loads(content))

    def send(self, kind: Kind, content: Any = None) -> None:
        """Sends a frame, if the other end is not gone."""
        if self._writer.is_closing():
            return
        data = marshal.dumps(content)
        with suppress(ConnectionError, RuntimeError):
            self._writer.write(_HEADER.pack(kind, len(data)) + data)

    async def drain(self) -> None:
        """Returns when most of what was sent is on its way."""
        with suppress(ConnectionError):
            await self._writer.drain()

    async def close(self) -> None:
        """Sends what is left, and closes this end."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()
