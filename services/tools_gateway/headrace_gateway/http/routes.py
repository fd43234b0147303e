"""The routes beside the tools: what each takes, does and answers. The application and its description are made from this."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel

from headrace import ArgumentsInvalid, Job, JobAnswer, JobList, JobsChanged, JobStatus, WireModel, WorkerList
from headrace_gateway.http.events import event, position
from headrace_gateway.http.models import (
    CancelQuery,
    ChangesQuery,
    ConversationPage,
    EntriesAppended,
    EntriesQuery,
    EntriesToAppend,
    JobsQuery,
    NoQuery,
    WhoseQuery,
    page_of,
)
from headrace_gateway.operations import Operations


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request, read and checked.

    Attributes:
        operations: what its principal may do.
        names: those in the path.
        query: of the route's model.
        body: of the route's model; None where it takes none.
    """

    operations: Operations
    names: Mapping[str, str]
    query: Any
    body: Any = None


@dataclass(frozen=True, kw_only=True)
class Route:
    """A route that is asked and answers once.

    Attributes:
        operation: the operation that it does, by its name in the list of operations; also its `operationId`.
        statuses: what else than success, and than the statuses that all routes share, it may answer with.
    """

    method: str
    path: str
    operation: str
    summary: str
    query: type[BaseModel] = NoQuery
    body: type[BaseModel] | None = None
    answer: type[WireModel]
    statuses: tuple[int, ...] = ()
    handler: Callable[[Asked], Awaitable[WireModel]]


@dataclass(frozen=True, kw_only=True)
class StreamRoute:
    """A route that answers with a stream of events.

    Attributes:
        opens: opens the source of jobs; what it raises is answered.
    """

    path: str
    operation: str
    summary: str
    description: str
    query: type[BaseModel] = NoQuery
    statuses: tuple[int, ...] = ()
    opens: Callable[[Asked, str | None], Awaitable[AsyncGenerator[bytes]]]
    method: str = field(default="GET", init=False)


# --- what they do -------------------------------------------------------------------------------------------------------


async def _list_jobs(asked: Asked) -> JobList:
    query: JobsQuery = asked.query
    return await asked.operations.list_jobs(limit=query.limit, cursor=query.cursor, **_filter(query))


def _filter(query: ChangesQuery) -> dict[str, str | None]:
    return {
        "status": query.status,
        "worker_name": query.worker_name,
        "user_id": query.user_id,
        "conversation_id": query.conversation_id,
    }


async def _get_job(asked: Asked) -> JobAnswer:
    return JobAnswer(job=await asked.operations.get_job(asked.names["jobId"], fresh=True))


async def _cancel_job(asked: Asked) -> JobAnswer:
    return JobAnswer(job=await asked.operations.cancel_job(asked.names["jobId"], wait=asked.query.wait))


async def _retry_job(asked: Asked) -> JobAnswer:
    return JobAnswer(job=await asked.operations.retry_job(asked.names["jobId"]))


async def _list_workers(asked: Asked) -> WorkerList:
    return WorkerList(workers=await asked.operations.list_workers())


async def _append(asked: Asked) -> EntriesAppended:
    body: EntriesToAppend = asked.body
    entries = [each.entry() for each in body.entries]
    made = await asked.operations.append_entries(asked.names["conversationId"], entries, user_id=asked.query.user_id)
    return EntriesAppended(ids=list(made.ids), added=made.added)


async def _entries(asked: Asked) -> ConversationPage:
    query: EntriesQuery = asked.query
    snapshot = await asked.operations.list_entries(asked.names["conversationId"], user_id=query.user_id)
    page = page_of(snapshot, query.limit, query.cursor)
    if page is None:
        raise ArgumentsInvalid("cursor: the memory has no such entry, or has none any more: leave it out to begin anew.")
    return page


async def _job_events(asked: Asked, last: str | None) -> AsyncGenerator[bytes]:
    jobs = await asked.operations.watch_job(asked.names["jobId"])
    knows_the_end = last is not None and last.partition(".")[0] in _ENDED

    async def parts() -> AsyncGenerator[bytes]:
        begun = False
        async with aclosing(jobs):
            async for job in jobs:
                told = _version(job)
                if told == last and job.status in _ENDED:
                    if begun:
                        return
                    raise NothingLeft
                # Another gateway has told of the end, of which this one has not heard yet: no job goes back to what was before.
                stale = knows_the_end and job.status not in _ENDED
                yield b"" if told == last or stale else event("job", job.to_wire(), told)
                begun = True

    return parts()


_ENDED: Final = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})


class NothingLeft(Exception):
    """Whoever comes again was told of everything that there will be."""


def _version(job: Job) -> str:
    return f"{job.status}.{-1 if job.epoch is None else job.epoch}.{job.attempt}.{job.sequence}"


async def _events(asked: Asked, last: str | None) -> AsyncGenerator[bytes]:
    changes = await asked.operations.watch_jobs(after=last, **_filter(asked.query))

    async def parts() -> AsyncGenerator[bytes]:
        async with aclosing(changes):
            async for change in changes:
                yield _told(change)

    return parts()


def _told(change: JobsChanged) -> bytes:
    """The events of a change. Only the last has an id: whoever is cut off before it is told of all of them again."""
    if not change.jobs:
        return position(change.token)
    *others, last = change.jobs
    return b"".join(event("job", job.to_wire()) for job in others) + event("job", last.to_wire(), change.token)


ROUTES: Final = (
    Route(
        method="GET",
        path="/jobs",
        operation="list_jobs",
        summary="A page of jobs, newest first",
        query=JobsQuery,
        answer=JobList,
        handler=_list_jobs,
    ),
    Route(
        method="GET",
        path="/jobs/{jobId}",
        operation="get_job",
        summary="A job, whole",
        answer=JobAnswer,
        statuses=(404,),
        handler=_get_job,
    ),
    Route(
        method="POST",
        path="/jobs/{jobId}/cancel",
        operation="cancel_job",
        summary="Cancel a job that has not ended",
        query=CancelQuery,
        answer=JobAnswer,
        statuses=(404, 409),
        handler=_cancel_job,
    ),
    Route(
        method="POST",
        path="/jobs/{jobId}/retry",
        operation="retry_job",
        summary="Do a failed job anew, as another job",
        answer=JobAnswer,
        statuses=(404, 409),
        handler=_retry_job,
    ),
    Route(
        method="GET",
        path="/workers",
        operation="list_workers",
        summary="The workers there are, and how they are doing",
        answer=WorkerList,
        handler=_list_workers,
    ),
    Route(
        method="GET",
        path="/memory/{conversationId}/entries",
        operation="list_entries",
        summary="What a conversation's memory is now, in reading order",
        query=EntriesQuery,
        answer=ConversationPage,
        handler=_entries,
    ),
    Route(
        method="POST",
        path="/memory/{conversationId}/entries",
        operation="append_entries",
        summary="Add to a conversation",
        query=WhoseQuery,
        body=EntriesToAppend,
        answer=EntriesAppended,
        statuses=(413,),
        handler=_append,
    ),
)
STREAMS: Final = (
    StreamRoute(
        path="/jobs/{jobId}/events",
        operation="watch_job",
        summary="A job as it stands, and again whenever that changes, up to its end",
        description="Events `job`, with the job as data. After the last one the stream ends; who comes again with its id as "
        "`Last-Event-ID` gets 204.",
        statuses=(204, 404),
        opens=_job_events,
    ),
    StreamRoute(
        path="/events",
        operation="watch_jobs",
        summary="The jobs that change from now on, or since `Last-Event-ID`",
        description="Events `job`, with the job as `GET /jobs` shows it. Any gateway of the same cluster goes on from an id that "
        "another one gave: each job that has changed since is told at least once, in its newest state.",
        query=ChangesQuery,
        statuses=(410,),
        opens=_events,
    ),
)
