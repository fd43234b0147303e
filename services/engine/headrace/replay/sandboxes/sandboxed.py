"""A replay in a sandbox: recorded jobs go through a queue and an engine of their own, with all that belongs to these."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

from headrace.abstract_worker import AbstractWorker
from headrace.codec import encode_foreign
from headrace.core.comparison import Outcome
from headrace.core.partitions import key_partition
from headrace.core.status import JobStatus
from headrace.core.topics import Topics
from headrace.engine.admission import RECORD_LIMIT_BYTES
from headrace.engine.engine import WorkerEngine
from headrace.engine.outcome import TOLD_ATTRIBUTE
from headrace.errors import BrokerError, ConfigurationError, TopicMissing
from headrace.job_context import JobContext
from headrace.models import WorkerDefinition
from headrace.ports import AppendFailed, Log, LogWriter, NewRecord, TopicPartition
from headrace.replay.history import RecordedJob
from headrace.replay.sandboxes.sandbox_ends import SandboxEnds
from headrace.replay.streams.pacing import Order, Pacing, ordered
from headrace.replay.streams.stream import Rerun, StreamReplay
from headrace.replay.streams.summary import Summary
from headrace.replay_errors import SandboxInUse
from headrace.runtime import ended_in_order
from headrace.settings import Settings

_MOST_OPEN: Final = 10_000
_APPEND_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 1.0
"""After so much time without an end of a job it is looked whether something else has ended some, or holds them up."""
# What would have the engine stop an attempt, or make another: a replay makes the one attempt that counted, as it was.
_NOT_TAKEN_OVER = frozenset({"retry", "attemptTimeout"})


def check_pacing(pacing: Pacing) -> None:
    """Raises ConfigurationError for what no sandbox can do."""
    if pacing.order is Order.LOG:
        raise ConfigurationError("In a sandbox an engine runs the jobs, in the order of their keys: leave out --order log.")


class _Failed(Exception):
    """Stands for what a replayed job raised, in the sandbox's own records."""


class _Again(AbstractWorker[dict[str, Any]]):
    """Runs recorded jobs of a worker again, in the engine of a sandbox."""

    def __init__(self, worker: AbstractWorker[Any], run: SandboxRun, concurrency: int) -> None:
        self._definition = worker.definition()
        self._run = run
        self.name = self._definition.name
        self.description = self._definition.description
        self.category = self._definition.category
        self.concurrency = concurrency

    def definition(self) -> WorkerDefinition:
        """That of the worker itself."""
        return self._definition

    async def run(self, args: dict[str, Any], ctx: JobContext) -> Any:  # noqa: ARG002 - they are the worker's own to check
        """Runs the recorded job of that id again."""
        return await self._run.again(ctx.job.id)


class SandboxRun:
    """One replay in a sandbox that is open.

    Args:
        log: the cluster.
        settings: those of the sandbox.
        workers: those of the code, by name; of each of these, jobs may come.
    """

    def __init__(self, log: Log, settings: Settings, workers: Mapping[str, AbstractWorker[Any]], replay: StreamReplay) -> None:
        self._log = log
        self._topics = Topics(settings.namespace)
        self._replay = replay
        self._open: dict[str, RecordedJob] = {}
        self._running: set[str] = set()
        self._ends = SandboxEnds(log, self._topics)
        self._seen: set[str] = set()
        self._changed = asyncio.Event()
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._places = asyncio.Semaphore(replay.pacing.concurrency)
        self._places_of: dict[str, asyncio.Semaphore] = {}
        self._engine = WorkerEngine(settings, log=log, in_sandbox=True)
        for worker in workers.values():
            at_most = min(replay.pacing.concurrency, worker.concurrency or replay.pacing.concurrency)
            again = _Again(worker, self, at_most)
            self._engine.register_worker(again)
            self._places_of[again.name] = asyncio.Semaphore(at_most)

    async def run(self, lost: asyncio.Future[None] | None = None) -> Summary:
        """Runs all jobs of the replay but for those that it passes over; when it returns, the sandbox has the end of each whose
        worker is not paused there.

        Args:
            lost: fails when the sandbox is there no more; see `opened_sandbox`.

        Raises:
            SandboxLost: it was removed by others.
            HistoryGone: the span begins before what is left of the log.
            BrokerError: the brokers cannot be used.
            HeadraceError: the engine ended by an error of its own.

        What running a job again raises, which is none of the job's own errors, ends all of it, too. A job that comes to another
        end in the sandbox, as by a cancellation there, is told as not comparable, and so are those whose worker is paused.
        """
        check_pacing(self._replay.pacing)
        async with ended_in_order(self._engine):  # half stopped, it would make topics again while they are removed
            work = asyncio.create_task(self._write_all())
            ended = asyncio.create_task(self._engine.ended())
            watched: set[asyncio.Future[Any]] = {work, ended, self._broken}
            try:
                await asyncio.wait(watched if lost is None else {*watched, lost}, return_when=asyncio.FIRST_COMPLETED)
                if lost is not None and lost.done():
                    lost.result()
                if self._broken.done():
                    self._broken.result()
                if not work.done():
                    raise ended.result()
                work.result()
            finally:
                for each in watched:
                    each.cancel()
                await asyncio.gather(*watched, return_exceptions=True)
                await self._ends.stop()
        return self._replay.summary

    async def again(self, job_id: str) -> Any:
        """What the recorded job of that id returns today. Raises what stands for what it raised."""
        job = self._open.get(job_id)
        if job is None and job_id not in self._seen:
            await self._end_by_stranger(job_id)
        if job is None:
            return None  # its end was not written in time, and the engine has it once more
        self._running.add(job_id)
        try:
            rerun = await self._rerun(job)
        except Exception as error:
            # The engine takes it for an end of the job, which stays open here: nobody would ever hear of it.
            if not self._broken.done():
                self._broken.set_exception(error)
            raise
        finally:
            self._running.discard(job_id)
        self._close(job_id)
        outcome = rerun.replayed
        if outcome.status is JobStatus.COMPLETED:
            return outcome.result
        failure = _Failed(outcome.error_message)
        told = {"type": outcome.error_type or "", "message": outcome.error_message or "", "traceback": ""}
        setattr(failure, TOLD_ATTRIBUTE, told)
        raise failure

    async def _end_by_stranger(self, job_id: str) -> None:
        """Somebody else has enqueued a job in the sandbox, past what refuses that: it is never told that it was done."""
        if not self._broken.done():
            self._broken.set_exception(
                SandboxInUse(
                    f"Job {job_id} was enqueued in the sandbox {self._topics.namespace} by somebody else, who is not to use it."
                    " It was not run, and all that is in the sandbox is deleted with it."
                )
            )
        await asyncio.Event().wait()  # until the engine stops, and interrupts it

    async def _rerun(self, job: RecordedJob) -> Rerun:
        """Runs a job again, when one more may run: the engine is not the only one that asks for it."""
        async with self._places_of[str(job.record["workerName"])], self._places:
            return await self._replay.rerun(job)

    async def _write_all(self) -> None:
        writer = self._log.writer()
        await writer.start()
        try:
            async with aclosing(ordered(self._replay.jobs(), self._replay.pacing)) as batches:
                async for batch in batches:
                    await self._write(writer, batch)
                    await self._until_open_at_most(_MOST_OPEN)
            await self._until_open_at_most(0)
        finally:
            await writer.stop(timeout=1.0)

    async def _write(self, writer: LogWriter, batch: Sequence[RecordedJob]) -> None:
        records: list[tuple[TopicPartition, NewRecord]] = []
        for job in batch:
            if self._replay.passes_over(job):
                continue
            if job.id in self._seen:
                await self._append(writer, records)
                records = []
                await self._run_beside(job)
                continue
            self._seen.add(job.id)
            target, record = await self._record_of(job)
            if len(record.value or b"") > RECORD_LIMIT_BYTES:
                reason = f"its record takes more than {RECORD_LIMIT_BYTES} bytes when it is written again"
                self._replay.leave_out(job, Outcome(JobStatus.FAILED), reason)
                continue
            self._open[job.id] = job
            records.append((target, record))
        await self._append(writer, records)

    async def _run_beside(self, job: RecordedJob) -> None:
        """Runs a job whose id the engine has had already, and would not run once more: when those of its key have ended that came
        before it. What comes after it is written when it has ended: it is one in very many.
        """
        lane = _lane(job)
        before = [each.id for each in self._open.values() if _lane(each) == lane]
        await self._until(lambda: not any(each in self._open for each in before))
        await self._rerun(job)

    async def _append(self, writer: LogWriter, records: Sequence[tuple[TopicPartition, NewRecord]]) -> None:
        for outcome in await writer.append_all(records, timeout=_APPEND_SECONDS):
            if isinstance(outcome, AppendFailed):
                raise outcome.reason

    async def _record_of(self, job: RecordedJob) -> tuple[TopicPartition, NewRecord]:
        topic = self._topics.jobs_name(str(job.record["workerName"]))
        _, key = _lane(job)
        value = {name: value for name, value in job.record.items() if name not in _NOT_TAKEN_OVER}
        partition = key_partition(key, await self._log.partition_count(topic))
        return TopicPartition(topic, partition), NewRecord(key.encode(), encode_foreign(value))

    # --- ends -----------------------------------------------------------------------------------------------------------

    def _close(self, job_id: str) -> RecordedJob | None:
        job = self._open.pop(job_id, None)
        self._changed.set()
        return job

    async def _until_open_at_most(self, count: int) -> None:
        await self._until(lambda: len(self._open) <= count)

    async def _until(self, is_so: Callable[[], bool]) -> None:
        """Waits for what becomes so as jobs end."""
        while not is_so():
            self._changed.clear()
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                await self._look()

    async def _look(self) -> None:
        """Closes what is open and will not be run again, as somebody has done something to it in the sandbox.

        While the brokers are away nothing can be known: it is looked again, and the engine sees to it.
        """
        with contextlib.suppress(BrokerError, TopicMissing):
            for job_id, outcome in (await self._ends.newly_ended(self._open)).items():
                self._leave_out(job_id, outcome, _other_end(outcome))
        paused = {group.worker.name for group in self._engine.groups if group.is_paused}
        if paused:
            waiting = [job for job in self._open.values() if job.id not in self._running and job.record["workerName"] in paused]
            for job in waiting:
                self._leave_out(job.id, Outcome(JobStatus.QUEUED), "its worker is paused in the sandbox")

    def _leave_out(self, job_id: str, outcome: Outcome, reason: str) -> None:
        if (job := self._close(job_id)) is not None:
            self._replay.leave_out(job, outcome, reason)


def _lane(job: RecordedJob) -> tuple[str, str]:
    """Jobs with the same run one after another: the worker, and the ordering key."""
    return str(job.record["workerName"]), str(job.record.get("orderingKey") or job.id)


def _other_end(outcome: Outcome) -> str:
    if outcome.status is JobStatus.CANCELLED:
        return "cancelled in the sandbox"
    if outcome.status is JobStatus.COMPLETED:
        return "run in the sandbox by another engine"
    return f"failed in the sandbox: {outcome.error_type}: {outcome.error_message}"
