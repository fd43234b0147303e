"""Accepting jobs: from arguments to records in a worker's queue that all in-sync replicas have."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from headrace.abstract_worker import AbstractWorker
from headrace.arguments import PublishedSchemas
from headrace.core.identifiers import is_fresh
from headrace.core.topics import Topics
from headrace.errors import AppendTimeout, ArgumentsInvalid, BrokerUnreachable, EnqueueTimeout, WorkerUnknown
from headrace.idempotency import check_same, id_of_key
from headrace.models import Job, WorkerDefinition
from headrace.ports import Acknowledged, AppendFailed, Log, LogWriter
from headrace.resubmission import Resubmission
from headrace.sandbox_refusal import create_live_topics
from headrace.settings import Settings
from headrace.submission import Arguments, Prepared, WorkerReference, check_seconds, ordering_key_of, plain_arguments, prepare
from headrace.views.jobs import JobView
from headrace.views.workers import WorkerDirectory

_DEFINITION_SECONDS = 60.0

Find = Callable[[Job], Awaitable[Job | None]]
"""Looks whether there is a job already, and gives it as it stands."""
Identify = Callable[[str, Mapping[str, Any], str | None], str]
"""Makes the id of a job from its worker's name, its arguments as they go over the wire, and its ordering key."""


@dataclass(frozen=True, slots=True)
class IdSource:
    """Where the times that are written down, in milliseconds since the Unix epoch, and the random bytes of ids come from."""

    now: Callable[[], int]
    randomness: Callable[[int], bytes]


class Acceptance:
    """Knows the workers and their queues, checks arguments, and writes job records.

    Args:
        writer: started and stopped by the caller.
        directory: likewise.
        source: of the times and the random bytes of jobs.
    """

    def __init__(self, log: Log, writer: LogWriter, directory: WorkerDirectory, settings: Settings, source: IdSource) -> None:
        self._source = source
        self._log = log
        self._writer = writer
        self._directory = directory
        self._settings = settings
        self._topics = Topics(settings.namespace)
        self._schemas = PublishedSchemas()
        self._local: dict[str, WorkerDefinition] = {}
        self._partitions: dict[str, int] = {}
        self._making: dict[str, asyncio.Lock] = {}

    @property
    def definitions(self) -> dict[str, WorkerDefinition]:
        """All workers that are known, by name."""
        return {**self._directory.definitions, **self._local}

    def define(self, definition: WorkerDefinition) -> None:
        """Makes a worker known before any engine has published it."""
        self._local[definition.name] = definition

    async def check(self, worker: str, args: dict[str, Any]) -> None:
        """Checks what `accept` would check of a job for the worker of that name.

        Raises:
            WorkerUnknown: no such worker is defined.
            ArgumentsInvalid: the arguments do not fit the schema that it published.
        """
        await self._schemas.check(await self._definition(worker), [args])

    async def check_worker(self, worker: str) -> None:
        """Raises WorkerUnknown unless a worker of that name is defined."""
        await self._definition(worker)

    async def accept(
        self,
        worker: WorkerReference,
        args: Sequence[Arguments],
        shared: Mapping[str, Any],
        *,
        ordering_key: str | None,
        timeout: float,
        identify: Identify | None = None,
        keys: Sequence[str | None] = (),
        keys_scope: str | None = None,
        find: Find | None = None,
    ) -> list[Job]:
        """Accepts jobs of one worker. Raises as `Client.enqueue_many`.

        Args:
            shared: the fields of the record that all of them have in common: `tenant`, `ctx`, and others of the wire.
            identify: makes the id of the one job that there is; ids are fresh when left out.
            keys: the idempotency key of each job, from which its id follows; None for a job without.
            keys_scope: within what of the tenant these tell requests apart; the whole tenant when left out.
            timeout: seconds that all of it may take, but for what `find` takes.
            find: looks whether there is a job already whose id is not fresh, as far as that is known: then it is not written.
        """
        check_seconds(timeout)
        started = _loop_time()
        reference = worker() if isinstance(worker, type) else worker
        made = None if isinstance(reference, str) else reference
        plain = [plain_arguments(each, made) for each in args]
        definition, count = self._at_hand(reference, plain) or await self._looked_up(reference, plain, timeout)
        topic = self._topics.jobs_name(definition.name)
        model = None if made is None else made.arguments_model
        prepared = []
        for each, idempotency_key in zip_longest(plain, keys):
            key = ordering_key or ordering_key_of(definition, each, model)
            job_id, own = None, dict(shared)
            if idempotency_key is not None:
                own["idempotencyKey"] = idempotency_key
                job_id = id_of_key(own["tenant"], definition.name, key, idempotency_key, keys_scope)
            elif identify is not None:
                job_id = _identified(identify, definition.name, each, key)
            fresh = self._source.now(), self._source.randomness(10)
            prepared.append(prepare(definition, each, own, key, (topic, count), job_id=job_id, made=fresh))
        known: dict[str, Job] = {}
        if find is not None:
            asked_at = _loop_time()
            known = await _known(prepared, find)
            # To read a view that was not open takes as long as it takes; what is left for the records is left.
            started += _loop_time() - asked_at
        missing = prepared if find is None else _each_once(prepared, known)
        offsets = await self._append(missing, timeout, left=max(0.0, timeout - (_loop_time() - started)))
        accepted = [each.accepted(offset) for each, offset in zip(missing, offsets, strict=True)]
        if missing is prepared:
            return accepted
        known.update((job.id, job) for job in accepted)
        return [known[each.job.id] for each in prepared]

    def _at_hand(self, worker: str | AbstractWorker[Any], args: Sequence[dict[str, Any]]) -> tuple[WorkerDefinition, int] | None:
        """The worker and the partitions of its queue, where both are known and the arguments are plain to fit: as a rule."""
        if not isinstance(worker, str):
            return None
        definition = self._local.get(worker) or self._directory.definitions.get(worker)
        count = self._partitions.get(worker)
        if definition is None or count is None or not self._schemas.certainly_fit(definition, args):
            return None
        return definition, count

    async def _looked_up(
        self, worker: str | AbstractWorker[Any], args: Sequence[dict[str, Any]], timeout: float
    ) -> tuple[WorkerDefinition, int]:
        """The same, of any worker. The arguments of one that is known by its name are checked."""
        try:
            # The queue of a worker that had no job yet is made here, which takes what the brokers take.
            async with asyncio.timeout(timeout):
                definition = await self._definition(worker)
                if isinstance(worker, str):
                    await self._schemas.check(definition, args)
                return definition, await self._partition_count(definition.name)
        except TimeoutError:
            raise BrokerUnreachable(
                f"{self._settings.bootstrap_servers}: no answer within {timeout:g} s; nothing was accepted."
            ) from None

    async def _definition(self, worker: str | AbstractWorker[Any]) -> WorkerDefinition:
        if not isinstance(worker, str):
            definition = worker.definition()
            self._local.setdefault(definition.name, definition)
            return definition
        known = self._local.get(worker) or self._directory.definitions.get(worker)
        if known is None:
            await self._directory.catch_up(_DEFINITION_SECONDS)
            known = self._directory.definitions.get(worker)
        if known is None:
            names = ", ".join(sorted(self.definitions)) or "none yet"
            raise WorkerUnknown(
                f"No worker named {worker!r} is defined. Defined are: {names}. A worker is defined when an engine with it starts."
            )
        return known

    async def _partition_count(self, worker: str) -> int:
        count = self._partitions.get(worker)
        if count is not None:
            return count
        # Of many first jobs at once, one makes the queue, and the others wait for it: each would ask the brokers as much.
        async with self._making.setdefault(worker, asyncio.Lock()):
            count = self._partitions.get(worker)
            if count is None:
                topic = self._topics.jobs(worker, self._settings.engine.partitions)
                await create_live_topics(self._log, self._topics, [topic])
                count = self._partitions[worker] = await self._log.partition_count(topic.name)
        return count

    async def _append(self, prepared: Sequence[Prepared], timeout: float, *, left: float) -> list[int]:
        """Offsets of the records, in their order. Of `timeout` seconds, `left` are left."""
        if not prepared:
            return []
        started = _loop_time()
        outcomes = await self._writer.append_all([(each.target, each.record) for each in prepared], timeout=left)
        # Of many, some may be accepted, whatever became of one of them.
        may_be_accepted = any(isinstance(outcome, Acknowledged) or outcome.may_land for outcome in outcomes)
        for each, outcome in zip(prepared, outcomes, strict=True):
            if not isinstance(outcome, AppendFailed):
                continue
            late = isinstance(outcome.reason, AppendTimeout)
            if not late and not outcome.may_land and len(prepared) == 1:
                # Made anew at the next call: the queue may have been deleted.
                self._partitions.pop(each.job.worker_name, None)
                raise outcome.reason
            waited = timeout if late else timeout - left + _loop_time() - started
            raise EnqueueTimeout(each.job.id, may_be_accepted=may_be_accepted, seconds=waited) from outcome.reason
        return [outcome.offset for outcome in outcomes if isinstance(outcome, Acknowledged)]


async def _known(prepared: Sequence[Prepared], find: Find) -> dict[str, Job]:
    """Those of the jobs that there are already, by id."""
    asked = [each.job for each in prepared if not is_fresh(each.job.id)]
    return {job.id: found for job in asked if (found := await find(job)) is not None}


def _each_once(prepared: Sequence[Prepared], known: Mapping[str, Job]) -> list[Prepared]:
    """Those that are to be written, each once: of a request that is made twice in one call, one.

    Raises:
        IdempotencyConflict: two requests have one key, and other arguments.
    """
    missing: dict[str, Prepared] = {}
    for each in prepared:
        if each.job.id not in known:
            check_same(each.job, missing.setdefault(each.job.id, each).job)
    return list(missing.values())


def _identified(identify: Identify, worker: str, args: Mapping[str, Any], ordering_key: str | None) -> str:
    try:
        return identify(worker, args, ordering_key)
    except TypeError as error:
        raise ArgumentsInvalid(f"Arguments and context must be JSON: {error}.") from None


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


@dataclass(frozen=True, slots=True)
class AcceptsAgain:
    """Accepts jobs in place of old ones: see `headrace.resubmission.Submitter`.

    Attributes:
        view: knows of every job that there is now.
        show: tells whoever looks at jobs of those that were accepted.
    """

    acceptance: Acceptance
    view: JobView
    show: Callable[[Sequence[Job]], Awaitable[None]]

    async def find(self, job_id: str, tenant: str) -> Job | None:
        return await self.view.get_job(job_id, tenant=tenant)

    async def check(self, again: Resubmission) -> None:
        await self.acceptance.check(again.worker_name, again.args)

    async def submit(self, again: Resubmission, *, timeout: float) -> Job:
        shared = {
            "tenant": again.tenant,
            "ctx": again.ctx,
            **again.own,
            **({"retryOf": again.retry_of} if again.retry_of else {}),
        }
        [job] = await self.acceptance.accept(
            again.worker_name, [again.args], shared, ordering_key=again.ordering_key, timeout=timeout, identify=again.identify
        )
        await self.show([job])
        return job
