"""What the gateway needs of headrace."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from typing import Any, Protocol

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


class Jobs(Protocol):
    """Accepts jobs and looks at them, for whichever tenant it is told; `headrace.Client` is it.

    Only `Operations` holds one: whoever has it can see and do everything.
    """

    async def enqueue(
        self,
        worker: str,
        args: dict[str, Any],
        ctx: CallContext | None = None,
        /,
        *,
        tenant: str = ...,
        ordering_key: str | None = ...,
        idempotency_key: str | None = ...,
        idempotency_scope: str | None = ...,
        timeout: float = ...,
    ) -> Job: ...

    async def worker_definitions(self, *, fresh_within: float | None = ...) -> dict[str, WorkerDefinition]: ...

    async def list_workers(self) -> list[WorkerSummary]: ...

    async def list_jobs(
        self,
        *,
        tenant: str = ...,
        status: str | None = ...,
        worker_name: str | None = ...,
        user_id: str | None = ...,
        conversation_id: str | None = ...,
        limit: int = ...,
        cursor: str | None = ...,
    ) -> JobList: ...

    async def count_jobs(
        self, workers: Collection[str], /, *, tenant: str = ..., user_id: str | None = ...
    ) -> Mapping[str, WorkerCounts]: ...

    async def wait_for_job(self, job_id: str, /, *, tenant: str = ..., wait: float) -> Job | None: ...

    async def get_job(self, job_id: str, /, *, tenant: str = ..., fresh: bool = ...) -> Job | None: ...

    async def retry_job(self, job_id: str, /, *, tenant: str = ..., timeout: float = ...) -> Job: ...

    async def cancel_job(self, job_id: str, /, *, tenant: str = ..., wait: float = ..., timeout: float = ...) -> Job: ...

    def watch_job(self, job_id: str, /, *, tenant: str = ...) -> AsyncGenerator[Job]: ...

    def watch_jobs(
        self,
        *,
        tenant: str = ...,
        status: str | None = ...,
        worker_name: str | None = ...,
        user_id: str | None = ...,
        conversation_id: str | None = ...,
        after: str | None = ...,
    ) -> AsyncGenerator[JobsChanged]: ...

    def watch_worker(self, name: str, /, *, tenant: str = ..., user_id: str | None = ...) -> AsyncGenerator[WorkerSummary]: ...

    def memory(self, *, tenant: str = ...) -> Conversations: ...


class Conversations(Protocol):
    """The memory of one tenant's conversations; `headrace.Memory` is it."""

    async def append(self, user_id: str, conversation_id: str, entries: Sequence[NewEntry], /) -> Appended: ...

    async def read(self, user_id: str, conversation_id: str, /) -> MemorySnapshot: ...
