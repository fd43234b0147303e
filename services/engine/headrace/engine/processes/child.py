"""What a child process does: it imports its worker, runs one attempt after another, and ends with its engine.

Its main thread runs the attempts. Another one reads what the engine says, so that an end of the engine ends it whatever the main
thread does. It holds nothing that the engine would miss: it may be killed at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import os
import queue
import signal
import socket
import sys
import threading
from functools import partial
from multiprocessing import spawn
from typing import Any, NoReturn

import orjson

from headrace.abstract_worker import AbstractWorker, overrides_process_job, runs_in_loop
from headrace.engine.outcome import encode_result
from headrace.engine.processes.failures import tell
from headrace.engine.processes.frames import HEADER, NUMBER, Kind, frame
from headrace.engine.processes.naming import worker_named
from headrace.engine.processes.recordings import ChildRecordings
from headrace.engine.processes.reports import Reports
from headrace.errors import MemoryStoreError
from headrace.job_context import JobContext, JobServices
from headrace.models import Job
from headrace.ports import ConversationMemory
from headrace.processes.logs import LogForwarder
from headrace.processes.starting import leave_signals_to_parent

_PR_SET_PDEATHSIG = 1
_CLOSE_SECONDS = 5.0


def main(descriptor: int, parent: int) -> NoReturn:
    """Runs a child process to its end.

    Args:
        descriptor: its end of the pair of sockets.
        parent: the process id of its engine.
    """
    _end_with(parent)
    leave_signals_to_parent()
    os.set_inheritable(descriptor, False)
    child = _Child(socket.socket(fileno=descriptor))
    threading.Thread(target=child.listen, name="headrace-engine", daemon=True).start()
    child.run()
    sys.exit(0)


def _end_with(parent: int) -> None:
    """The kernel kills this process when its engine ends; where it cannot, the end of the connection does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it ended meanwhile


class _Child:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._frames: queue.SimpleQueue[tuple[Kind, bytes]] = queue.SimpleQueue()
        self._sending = threading.Lock()
        self._reports = Reports(self._send)
        self._recordings = ChildRecordings(self._send)
        self._runner = asyncio.Runner()
        self._worker: AbstractWorker[Any]

    def listen(self) -> None:
        """Takes in what the engine says, and ends the process when the engine is gone."""
        try:
            with self._connection.makefile("rb") as stream:
                while len(header := stream.read(HEADER.size)) == HEADER.size:
                    kind, length = HEADER.unpack(header)
                    content = stream.read(length)
                    if kind == Kind.RECORDED:
                        self._recordings.answered(content)
                    else:
                        self._frames.put((Kind(kind), content))
        finally:
            os._exit(1)

    def run(self) -> None:
        """Runs what comes, until nothing more does."""
        _, content = self._frames.get()
        begin = orjson.loads(content)
        try:
            spawn.prepare(begin["preparation"])
            LogForwarder(partial(self._send, Kind.LOG)).install(begin["levels"])
            self._worker = worker_named(begin["worker"])
        except BaseException as error:  # also what a module raises that wants to end the process
            self._send(Kind.RAISED, NUMBER.pack(0) + tell(error))
            return
        self._send(Kind.READY, NUMBER.pack(0))
        while True:
            kind, content = self._frames.get()
            if kind is Kind.END:
                break
            self._attempt(orjson.loads(content))
        self._close()

    def _attempt(self, call: dict[str, Any]) -> None:
        number = call["number"]
        try:
            job = Job.model_validate(call["job"])
            services = JobServices(
                memory=_no_memory,
                report=lambda _, __, *said: self._reports.progress(number, *said),
                recordings=lambda _, __: self._recordings.of(number),
            )
            token, started_at = (call["token"][0], call["token"][1]), call["startedAt"]
            ctx = JobContext(job, attempt=call["attempt"], services=services, fencing_token=token, started_at=started_at)
            result = encode_result(self._call(job, ctx))
            kind, content = Kind.RETURNED, b"" if result is None else orjson.dumps(result)
        except BaseException as error:  # whatever a worker raises costs its attempt alone
            kind, content = Kind.RAISED, tell(error)
        self._reports.flush()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        self._send(kind, NUMBER.pack(number) + content)

    def _call(self, job: Job, ctx: JobContext) -> Any:
        worker = self._worker
        context = contextvars.copy_context()
        if not overrides_process_job(worker) and not runs_in_loop(worker):
            # In the main thread, and outside of any event loop.
            return context.run(lambda: worker.run(worker.parse_arguments(job.args or {}), ctx))
        return self._runner.run(worker.process_job(job, ctx), context=context)

    def _close(self) -> None:
        with contextlib.suppress(Exception):
            self._runner.run(self._close_worker())
        with contextlib.suppress(Exception):
            self._runner.close()

    async def _close_worker(self) -> None:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await self._worker.close()

    def _send(self, kind: Kind, content: bytes = b"") -> None:
        with self._sending:
            self._connection.sendall(frame(kind, content))


def _no_memory(_: Job) -> ConversationMemory:
    raise MemoryStoreError(
        "An attempt in a process of its own has no memory of conversations: a worker that uses ctx.memory runs in the event"
        " loop, or in a thread."
    )
