"""One child process, as its engine sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from headrace.engine.processes.failures import told_error
from headrace.engine.processes.frames import HEADER, LARGEST_BYTES, NUMBER, Kind, frame
from headrace.engine.processes.recordings import RecordingDesk
from headrace.errors import WorkerProcessDied
from headrace.ports import Recorder
from headrace.processes.logs import levels_set, log_again
from headrace.processes.starting import how_it_ended, start_child

_POLL_SECONDS = 0.05
_END_SECONDS = 6.0

Progress = Callable[[int, float, str | None], None]


class Answer(NamedTuple):
    """What came of an attempt in a child process.

    Attributes:
        result: the JSON of what it returned.
        error: what it raised.
    """

    result: orjson.Fragment | None = None
    error: BaseException | None = None


class ChildProcess:
    """A child process, and the connection to it. It is started from the event loop's thread, and dies with that.

    Attributes:
        pid: its process id.
    """

    def __init__(self) -> None:
        """Starts the process; `prepare` must follow."""
        self._loop = asyncio.get_running_loop()
        self._gone = asyncio.Event()
        self._exit_descriptor: int | None = None
        self._calls = 0
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = start_child("headrace.engine.processes.child:main", theirs.fileno())
        self.pid = self._process.pid
        self._watch()

    async def prepare(self, worker: str) -> None:
        """Waits until it is ready to run attempts of a worker.

        Raises:
            BaseException: whatever was raised there; the worker cannot be imported.
            WorkerProcessDied: it died of it.
        """
        # The streams close the one, and the other still tells them that the process is gone.
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._socket.dup())
        levels = levels_set()
        begin = {"worker": worker, "levels": levels, "preparation": _preparation(of_main=worker.startswith("__main__:"))}
        self._writer.write(frame(Kind.BEGIN, orjson.dumps(begin)))
        if (error := (await self._answer(0, lambda *_: None)).error) is not None:
            raise error

    @property
    def has_ended(self) -> bool:
        """Whether it runs no more."""
        return self._gone.is_set()

    async def call(
        self, call: dict[str, Any], progress: Callable[[float, str | None], None], recorder: Callable[[], Recorder | None]
    ) -> Answer:
        """Runs an attempt there; what came of it.

        Args:
            recorder: makes what the attempt records with, if it does.

        Raises:
            WorkerProcessDied: the process died.
            BaseException: whatever was raised here, by whom ever: the attempt may run on there.
        """
        self._calls = number = self._calls + 1

        def said(of: int, fraction: float, text: str | None) -> None:
            if of == number:
                progress(fraction, text)

        desk = RecordingDesk(recorder, self._send)
        self._send(Kind.CALL, orjson.dumps({**call, "number": number}))
        try:
            return await self._answer(number, said, desk)
        finally:
            desk.close()

    def _send(self, kind: Kind, content: bytes) -> None:
        assert self._writer is not None
        self._writer.write(frame(kind, content))

    async def _answer(self, number: int, progress: Progress, desk: RecordingDesk | None = None) -> Answer:
        while True:
            try:
                kind, length = HEADER.unpack(await self._reader.readexactly(HEADER.size))
                if length > LARGEST_BYTES:
                    raise ConnectionError("no frame is as large as that")
                content = await self._reader.readexactly(length)
            except (asyncio.IncompleteReadError, ConnectionError):
                self.kill()
                await self._gone.wait()
                raise WorkerProcessDied(self._process.returncode, how_it_ended(self._process.returncode)) from None
            match kind:
                case Kind.PROGRESS:
                    told = orjson.loads(content)
                    progress(told["number"], told["fraction"], told["text"])
                case Kind.LOG:
                    log_again(orjson.loads(content))
                case Kind.FIND | Kind.RECORD:
                    # What a thread asks for that has outlived its attempt is not for the next one.
                    if desk is not None and NUMBER.unpack_from(content) == (number,):
                        desk.take(Kind(kind), content[NUMBER.size :])
                case Kind.READY | Kind.RETURNED | Kind.RAISED:
                    [of], said = NUMBER.unpack_from(content), content[NUMBER.size :]
                    if of != number:
                        raise RuntimeError(f"A process answered for call {of} while call {number} ran in it.")
                    if kind == Kind.RAISED:
                        return Answer(error=told_error(orjson.loads(said)))
                    return Answer(orjson.Fragment(said) if said else None)

    def kill(self) -> None:
        """Ends it at once."""
        if not self.has_ended:
            self._process.kill()

    async def end(self) -> None:
        """Lets it close its worker and end, and kills it if that takes long."""
        if self._writer is not None and not self.has_ended:
            with contextlib.suppress(ConnectionError, RuntimeError):
                self._writer.write(frame(Kind.END))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_SECONDS):
                    await self._gone.wait()
        self.kill()
        await self.gone()

    async def gone(self) -> None:
        """Waits until it has ended, whoever cancels that meanwhile: nothing may be said of its attempt before."""
        cancelled = False
        while not self.has_ended:
            try:
                await self._gone.wait()
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            raise asyncio.CancelledError

    # --- its end --------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        if hasattr(os, "pidfd_open"):
            self._exit_descriptor = os.pidfd_open(self.pid)
            self._loop.add_reader(self._exit_descriptor, self._look)
        else:
            self._loop.call_later(_POLL_SECONDS, self._look)

    def _look(self) -> None:
        if self._process.poll() is None:
            if self._exit_descriptor is None:
                self._loop.call_later(_POLL_SECONDS, self._look)
            return
        if self._exit_descriptor is not None:
            self._loop.remove_reader(self._exit_descriptor)
            os.close(self._exit_descriptor)
        # What it said last is still read. A process that it started itself may have its end of the connection open.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._gone.set()

    def close(self) -> None:
        """Gives back what is left of one that has ended."""
        if self._writer is not None:
            self._writer.close()


def _preparation(*, of_main: bool) -> dict[str, Any]:
    """What `multiprocessing` needs to make a process as this one is: the search path, and the program where that is needed."""
    prepared: dict[str, Any] = {"sys_path": sys.path, "sys_argv": sys.argv, "dir": os.getcwd()}  # noqa: PTH109 - as text
    program = sys.modules["__main__"]
    name = getattr(getattr(program, "__spec__", None), "name", None)
    if of_main and name is not None:
        prepared["init_main_from_name"] = name
    elif of_main and (path := getattr(program, "__file__", None)) is not None:
        prepared["init_main_from_path"] = os.path.abspath(path)  # noqa: PTH100 - as text
    return prepared
