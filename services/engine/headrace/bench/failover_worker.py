"""The workers of `headrace bench failover`: they write down, outside of Kafka, when their attempts begin and end."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from pydantic import BaseModel

from headrace.abstract_worker import AbstractWorker
from headrace.job_context import JobContext


class FailoverArguments(BaseModel):
    """What a job of them does.

    Attributes:
        file: where it says so.
        seconds: how long it takes.
    """

    file: Path
    seconds: float


class Failover(AbstractWorker[FailoverArguments]):
    """Waits, as for a model's answer."""

    name = "bench_failover"
    description = "Waits for a while."
    category = "benchmark"
    concurrency = 200

    async def run(self, args: FailoverArguments, ctx: JobContext) -> None:
        """Waits."""
        self._note(args.file, "begin", ctx)
        try:
            await asyncio.sleep(args.seconds)
        except asyncio.CancelledError:
            self._note(args.file, "stop", ctx)
            raise
        self._note(args.file, "end", ctx)

    def _note(self, file: Path, event: str, ctx: JobContext) -> None:
        # One short write at the file's end is whole, whoever else writes.
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, f"{event} {ctx.job.id} {ctx.attempt} {os.getpid()} {os.getppid()} {time.time():.6f}\n".encode())
        finally:
            os.close(descriptor)


class FailoverLong(Failover):
    """Waits, as for a long piece of work."""

    name = "bench_failover_long"
