"""Workers whose attempts run in child processes, which import them from here."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

from headrace import AbstractWorker, GiveUp, Job, JobContext, Retry, RetryPolicy
from support.memory_engines import GatedWorker


class Unheard(ValueError):
    """An exception whose class the engine need not know."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class Busy(Retry):
    """Asks for another attempt under a name of its own."""


def _kill_memory() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (64 * 1024 * 1024, 64 * 1024 * 1024))
    held = []
    while True:
        held.append(bytearray(1024 * 1024))


def _abort_without_memory() -> None:
    """As native code does whose allocation fails."""
    most = 4 * 1024**3
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    library = ctypes.CDLL(None)
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    if library.malloc(2 * most) is None:
        library.abort()


def _take_memory_of(members: Path) -> int:
    """Takes up to half a gigabyte as a member of a group of processes that may have less."""
    members.write_text(str(os.getpid()))
    held = [b"x" * 2**20 for _ in range(512)]
    return len(held)


def _wait_for(file: Path) -> int:
    while not file.exists():
        time.sleep(0.02)
    return os.getpid()


def behave(args: dict[str, Any], ctx: JobContext) -> Any:  # noqa: C901 - a table, by the names of jobs
    """Does what the name of the job says."""
    match args["name"]:
        case "pid":
            return os.getpid()
        case "segfault":
            ctypes.string_at(0)
        case "exit":
            os._exit(3)
        case "sys-exit":
            sys.exit("enough")
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "memory":
            _kill_memory()
        case "aborts":
            _abort_without_memory()
        case "takes-memory":
            return _take_memory_of(Path(args["members"]))
        case "waits-for":
            return _wait_for(Path(args["file"]))
        case "blocks":
            # As code does that holds the interpreter: nothing else of this process runs.
            ctypes.PyDLL(None).sleep(60)
        case "sleeps":
            Path(args["file"]).write_text(str(os.getpid()))
            time.sleep(60)
        case "unheard":
            raise Unheard(1, 2)
        case "busy":
            if ctx.attempt == 1:
                raise Busy("later", after=0.01)
            return ctx.attempt
        case "give-up":
            raise GiveUp("no use")
        case "group":
            raise ExceptionGroup("several", [Unheard(1, 2), ValueError("three")])
        case "generator-exit":
            raise GeneratorExit("left")
        case "huge":
            return "x" * 600_000
        case "large":
            return "x" * 500_000
        case "no-json":
            return object()
        case "none":
            return None
        case "progress":
            for number in range(1, 101):
                ctx.progress(number / 100, f"{number} of 100")
            return "done"
        case "says-and-works":
            logging.getLogger("elsewhere").warning("at work")
            time.sleep(0.3)
            return "its own"
        case "logs":
            ctx.logger.warning("from %s", "afar", extra={"colour": "blue"})
            logging.getLogger("elsewhere").info("not loud enough")
            try:
                raise Unheard(3, 4)
            except Unheard:
                ctx.logger.exception("with a trace")
        case "memory-of-conversations":
            return str(ctx.memory)
        case "context":
            job = ctx.job
            return {"id": job.id, "status": job.status, "attempt": ctx.attempt, "token": ctx.fencing_token, "args": job.args}
        case "records":
            found = ctx.recorded_from_thread("model", lambda: (os.getpid(), ctx.attempt), reuse=True)
            if ctx.attempt == 1:
                raise Busy("later", after=0.01)
            return [found, ctx.recorded_from_thread("large", lambda: "x" * 500_000)[:1], ctx.now().isoformat()]
        case "records-a-failure":
            try:
                return ctx.recorded_from_thread("model", lambda: 1 // 0)
            except ZeroDivisionError as error:
                return [str(error), ctx.recorded_from_thread("model", lambda: 2)]
        case "records-no-json":
            return ctx.recorded_from_thread("model", object)
        case "grandchild":
            # It keeps the connection open when its parent is gone.
            if os.fork() == 0:
                time.sleep(5)
                os._exit(0)
            os._exit(7)
        case _:
            return args["name"]
    return None


class Behaves(GatedWorker):
    """Its jobs do what they are named after, in child processes."""

    executor = "process"
    concurrency = 2

    def __init__(self) -> None:
        super().__init__(concurrency=2)

    def run(self, args: dict[str, Any], ctx: JobContext) -> Any:  # a plain function, and not a coroutine function
        return behave(args, ctx)


class BehavesAsync(Behaves):
    """The same in an event loop of the child."""

    async def run(self, args: dict[str, Any], ctx: JobContext) -> Any:
        await asyncio.sleep(0)
        if args["name"] == "records-many":
            return await asyncio.gather(*(ctx.recorded("model", os.getpid) for _ in range(20)))
        return behave(args, ctx)


class Overridden(Behaves):
    """It has a way of its own of running a job."""

    async def process_job(self, job: Job, ctx: JobContext | None = None) -> Any:
        return {"overridden": await super().process_job(job, ctx), "pid": os.getpid()}


class InLoop(GatedWorker):
    """Its jobs run in the engine's own event loop, until one is isolated."""

    async def run(self, args: dict[str, Any], ctx: JobContext) -> Any:
        if args["name"] == "waits":
            await asyncio.sleep(60)
        return behave(args, ctx)


class NoWorker(AbstractWorker[dict[str, Any]]):
    """A worker that is made of something."""

    name = "gated"
    executor = "process"

    def __init__(self, something: int) -> None:
        self.something = something

    def run(self, args: dict[str, Any], ctx: JobContext) -> Any:
        return self.something


kept = NoWorker(5)


class Dies(AbstractWorker[dict[str, Any]]):
    """Its process dies, whoever runs it."""

    name = "dies"
    description = "Takes its process with it."
    executor = "process"
    concurrency = 1
    retry = RetryPolicy(max_attempts=1)

    def run(self, args: dict[str, Any], ctx: JobContext) -> str:
        os._exit(3)
