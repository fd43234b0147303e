"""What tools need of headrace, in memory: for tests of the tools' own rules."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from headrace import (
    Appended,
    CallContext,
    Job,
    JobList,
    JobsChanged,
    MemorySnapshot,
    NewEntry,
    WorkerCounts,
    WorkerDefinition,
    WorkerSummary,
)
from headrace.arguments import PublishedSchemas
from headrace_gateway import Operations, Principal, Scope
from headrace_gateway.access import ALL_SCOPES

MEMORY_WORKER = WorkerDefinition(
    name="memory_compaction_worker",
    description="Compacts a conversation's memory.",
    category="memory",
    kind="memory_compaction",
    arguments_schema={
        "type": "object",
        "properties": {
            "userId": {"type": "string"},
            "conversationId": {"type": "string"},
            "title": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "content": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "required": ["userId", "conversationId"],
        "additionalProperties": False,
    },
)
DIGEST_WORKER = WorkerDefinition(
    name="send_digest",
    description="Sends a digest.",
    category="tool",
    kind="digest",
    arguments_schema={
        "type": "object",
        "properties": {
            "to": {"type": "array", "items": {"type": "string"}, "minItems": 1},
            "when": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        },
        "required": ["to"],
    },
)
HIDDEN_WORKER = WorkerDefinition(name="janitor", description="Not for agents.", category="internal")


@dataclass
class InMemoryJobs:
    """Accepts every job for a worker that it knows whose arguments fit, as a `Client` does, and keeps how it was asked.

    Attributes:
        enqueued: keyword and positional arguments of each accepted job, in order.
        listed: the filters of each look at jobs, in order.
        counted: for whom jobs were counted, in order.
        waited: each job that was waited for, and for how long, in order.
        retried: each job that was to be retried, and how it was asked, in order.
        cancelled: each job that was to be cancelled, and how it was asked, in order.
        failure: raised instead of accepting a job, or of looking at jobs.
        live: live instances by worker.
        just_published: definitions that only a fresh look sees.
        schemas: checks the arguments.
        conversations: tenant, user and conversation of each look at a memory, or addition to it.
        accepted_at: when the jobs were accepted that are returned.
    """

    definitions: list[WorkerDefinition] = field(default_factory=lambda: [MEMORY_WORKER, DIGEST_WORKER, HIDDEN_WORKER])
    enqueued: list[dict[str, Any]] = field(default_factory=list)
    listed: list[dict[str, Any]] = field(default_factory=list)
    counted: list[dict[str, Any]] = field(default_factory=list)
    waited: list[dict[str, Any]] = field(default_factory=list)
    retried: list[dict[str, Any]] = field(default_factory=list)
    cancelled: list[dict[str, Any]] = field(default_factory=list)
    failure: Exception | None = None
    live: dict[str, int] = field(default_factory=dict)
    just_published: list[WorkerDefinition] = field(default_factory=list)
    schemas: PublishedSchemas = field(default_factory=PublishedSchemas)
    conversations: list[tuple[str, str, str]] = field(default_factory=list)
    accepted_at: Callable[[], datetime] = lambda: datetime.now(UTC)

    async def enqueue(
        self,
        worker: str,
        args: dict[str, Any],
        ctx: CallContext | None = None,
        /,
        *,
        tenant: str = "default",
        ordering_key: str | None = None,
        idempotency_key: str | None = None,
        idempotency_scope: str | None = None,
        timeout: float = 10.0,
    ) -> Job:
        if self.failure is not None:
            raise self.failure
        definition = next(each for each in self.definitions if each.name == worker)
        await self.schemas.check(definition, [args])
        context = ctx or CallContext()
        asked = {"worker": worker, "args": args, "ctx": context.to_wire(), "tenant": tenant, "timeout": timeout}
        self.enqueued.append(asked | {"ordering_key": ordering_key, "idempotency_key": idempotency_key})
        job_id = f"job-{len(self.enqueued)}"
        return a_job(job_id, worker_name=worker, args=args, ctx=context, tenant=tenant, created_at=self.accepted_at())

    async def worker_definitions(self, *, fresh_within: float | None = None) -> dict[str, WorkerDefinition]:
        if fresh_within is not None:
            self.definitions += self.just_published
            self.just_published = []
        return {definition.name: definition for definition in self.definitions}

    async def list_workers(self) -> list[WorkerSummary]:
        return [
            WorkerSummary(
                name=definition.name,
                description=definition.description,
                category=definition.category,
                kind=definition.kind,
                arguments_schema=definition.arguments_schema,
                live_instances=self.live.get(definition.name, 0),
            )
            for definition in self.definitions
        ]

    async def list_jobs(self, **filters: Any) -> JobList:
        if self.failure is not None:
            raise self.failure
        self.listed.append(filters)
        return JobList(jobs=[a_job("job-1")], next_cursor=None)

    async def count_jobs(
        self, workers: Collection[str], /, *, tenant: str = "default", user_id: str | None = None
    ) -> Mapping[str, WorkerCounts]:
        self.counted.append({"tenant": tenant, "user_id": user_id})
        return {worker: WorkerCounts(3, 1, 2) for worker in workers}

    async def wait_for_job(self, job_id: str, /, *, tenant: str = "default", wait: float) -> Job | None:
        self.waited.append({"job_id": job_id, "tenant": tenant, "wait": wait})
        return a_job(job_id, tenant=tenant, status="completed")

    async def get_job(self, job_id: str, /, *, tenant: str = "default", fresh: bool = False) -> Job | None:
        """Each tenant has a job of its own name."""
        return a_job(job_id, tenant=tenant, result={"whole": True}) if job_id == f"job-of-{tenant}" else None

    async def watch_job(self, job_id: str, /, *, tenant: str = "default") -> AsyncGenerator[Job]:
        yield a_job(job_id, tenant=tenant, status="completed")

    async def watch_jobs(self, **filters: Any) -> AsyncGenerator[JobsChanged]:
        self.listed.append(filters)
        yield JobsChanged((), "token")

    async def watch_worker(
        self, name: str, /, *, tenant: str = "default", user_id: str | None = None
    ) -> AsyncGenerator[WorkerSummary]:
        self.counted.append({"tenant": tenant, "user_id": user_id})
        yield next(each for each in await self.list_workers() if each.name == name)

    def memory(self, *, tenant: str = "default") -> InMemoryConversations:
        return InMemoryConversations(self, tenant)

    async def retry_job(self, job_id: str, /, *, tenant: str = "default", timeout: float = 10.0) -> Job:
        if self.failure is not None:
            raise self.failure
        self.retried.append({"job_id": job_id, "tenant": tenant, "timeout": timeout})
        return a_job(f"{job_id}-again", tenant=tenant, retry_of=job_id, created_at=self.accepted_at())

    async def cancel_job(self, job_id: str, /, *, tenant: str = "default", wait: float = 0.0, timeout: float = 10.0) -> Job:
        if self.failure is not None:
            raise self.failure
        self.cancelled.append({"job_id": job_id, "tenant": tenant, "wait": wait, "timeout": timeout})
        return a_job(job_id, tenant=tenant, status="cancelled")


@dataclass
class InMemoryConversations:
    """The empty conversations of a tenant."""

    jobs: InMemoryJobs
    tenant: str

    async def append(self, user_id: str, conversation_id: str, entries: Sequence[NewEntry], /) -> Appended:
        self.jobs.conversations.append((self.tenant, user_id, conversation_id))
        return Appended(tuple(str(number) for number, _ in enumerate(entries)), len(entries))

    async def read(self, user_id: str, conversation_id: str, /) -> MemorySnapshot:
        self.jobs.conversations.append((self.tenant, user_id, conversation_id))
        return MemorySnapshot(-1, (), 0, ())


def operations_of(
    jobs: InMemoryJobs,
    *,
    tenant: str = "default",
    subject: str = "local",
    scopes: frozenset[Scope] = ALL_SCOPES,
    timeout: float = 10.0,
) -> Operations:
    """What a principal can do with these jobs; everything, unless its scopes are named."""
    return Operations(jobs, Principal(subject=subject, tenant=tenant, scopes=scopes), timeout=timeout)


def a_job(job_id: str, **values: Any) -> Job:
    """A job that was just accepted."""
    moment = datetime(2026, 1, 31, 9, 15, tzinfo=UTC)
    given = {"worker_name": "send_digest", "status": "queued", "created_at": moment, "updated_at": moment}
    return Job.model_validate({"id": job_id, **given, **values})
