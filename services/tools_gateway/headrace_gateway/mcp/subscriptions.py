"""`subscriptions/listen`: a stream that tells of each change of some jobs, as resources and as tasks, up to their end, and of
workers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine, Iterable, Mapping
from contextlib import aclosing
from typing import Any, Final

from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp_types import (
    INVALID_PARAMS,
    NotificationParams,
    ResourceUpdatedNotification,
    ResourceUpdatedNotificationParams,
    SubscriptionFilter,
    SubscriptionsAcknowledgedNotification,
    SubscriptionsAcknowledgedNotificationParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
)
from mcp_types import Notification as ProtocolNotification
from pydantic import ConfigDict

from headrace import BrokerError, Job, JobUnknown, WatchInterrupted, WorkerSummary, WorkerUnknown
from headrace_gateway.mcp.callers import Callers, RequestContext
from headrace_gateway.mcp.resources import JOB, WORKER, part_of
from headrace_gateway.mcp.tasks import Tasks, follows_tasks, tasks_missing

logger = logging.getLogger(__name__)

MOST_SUBSCRIBED: Final = 100
_TASK_IDS: Final = "taskIds"
# How long a stream waits before it watches a worker anew whose watching was interrupted.
_AGAIN_SECONDS: Final = 1.0


class TaskParametersOfNotification(NotificationParams):
    """A task as it stands."""

    model_config = ConfigDict(extra="allow")


class TaskNotification(ProtocolNotification[TaskParametersOfNotification, str]):
    """Tells how a task stands."""

    method: str = "notifications/tasks"
    params: TaskParametersOfNotification


class Subscriptions:
    """Serves streams of changes. Of what a caller may not see, or what there is not, nothing is promised and nothing is told."""

    def __init__(self, callers: Callers, tasks: Tasks) -> None:
        self._callers = callers
        self._tasks = tasks
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Ends every stream, in order: clients know that they may listen elsewhere."""
        self._closing.set()

    async def listen(self, request: RequestContext, parameters: SubscriptionsListenRequestParams) -> SubscriptionsListenResult:
        """Tells of changes, first of all how everything stands. It ends when all that is listened to has ended, when the client
        leaves, or when its credential does not count any more."""
        wanted = parameters.notifications
        addresses = list(dict.fromkeys(wanted.resource_subscriptions or ()))
        task_ids = _task_ids(wanted)
        if task_ids and not follows_tasks(request):
            raise tasks_missing()
        if len(addresses) + len(task_ids) > MOST_SUBSCRIBED:
            raise MCPError(INVALID_PARAMS, f"Listen to at most {MOST_SUBSCRIBED} resources and tasks with one request.")
        jobs = _named(addresses, JOB)
        workers = _named(addresses, WORKER)
        seen = await self._visible({*jobs.values(), *task_ids})
        watched = await self._watched(dict.fromkeys(workers.values()))
        told_of = [each for each in addresses if jobs.get(each) in seen or workers.get(each) in watched]
        task_ids = [task_id for task_id in task_ids if task_id in seen]
        meta: dict[str, Any] = {SUBSCRIPTION_ID_META_KEY: request.request_id}
        # What was found meanwhile is not for whom may be told nothing more.
        self._callers.check()
        self._callers.began()
        await self._acknowledge(request, told_of, task_ids, meta)
        watching: list[Coroutine[Any, Any, None]] = []
        for job_id in seen:
            updates = _updates(jobs, job_id, meta)
            watching.append(self._tell_of_job(request, job_id, updates, meta if job_id in task_ids else None))
        for name, summaries in watched.items():
            watching.append(self._tell_of_worker(request, name, summaries, _updates(workers, name, meta)))
        await self._until_over(watching)
        return SubscriptionsListenResult(_meta=meta)

    async def _visible(self, job_ids: Iterable[str]) -> set[str]:
        operations = self._callers.operations()
        seen: set[str] = set()
        for job_id in job_ids:
            try:
                seen.add((await operations.get_job(job_id, fresh=True)).id)
            except JobUnknown:
                continue
        return seen

    async def _watched(self, names: Iterable[str]) -> dict[str, AsyncGenerator[WorkerSummary]]:
        """The workers of these names that there are, each with how it stands and what changes of it."""
        operations = self._callers.operations()
        watched: dict[str, AsyncGenerator[WorkerSummary]] = {}
        for name in names:
            try:
                watched[name] = await operations.watch_worker(name)
            except WorkerUnknown:
                continue
        return watched

    async def _acknowledge(
        self, request: RequestContext, addresses: list[str], task_ids: list[str], meta: dict[str, Any]
    ) -> None:
        promised = SubscriptionFilter.model_validate(
            {
                **({"resourceSubscriptions": addresses} if addresses else {}),
                **({_TASK_IDS: task_ids} if task_ids else {}),
            }
        )
        notification = SubscriptionsAcknowledgedNotification(
            params=SubscriptionsAcknowledgedNotificationParams(notifications=promised, _meta=meta)
        )
        await request.session.send_notification(notification, related_request_id=request.request_id)

    async def _tell_of_job(
        self,
        request: RequestContext,
        job_id: str,
        updates: list[ResourceUpdatedNotification],
        as_task: dict[str, Any] | None,
    ) -> None:
        try:
            async with aclosing(await self._callers.operations().watch_job(job_id)) as states:
                async for job in states:
                    for update in updates:
                        await self._tell(request, update)
                    if as_task is not None:
                        await self._tell(request, self._task(job, as_task))
        except (JobUnknown, WatchInterrupted):
            # It is over with this one. Whoever wants to know more reads it, and listens anew.
            return

    async def _tell_of_worker(
        self,
        request: RequestContext,
        name: str,
        summaries: AsyncGenerator[WorkerSummary],
        updates: list[ResourceUpdatedNotification],
    ) -> None:
        """Tells of a worker as long as there is one. It has no end of its own, and so neither has this."""
        while True:
            try:
                async with aclosing(summaries):
                    async for _ in summaries:
                        for update in updates:
                            await self._tell(request, update)
            except (WatchInterrupted, BrokerError) as error:
                logger.info("Watching worker %s goes on in a moment: %s", name, error)
            except WorkerUnknown:
                break
            await asyncio.sleep(_AGAIN_SECONDS)
            try:
                summaries = await self._callers.operations().watch_worker(name)
            except WorkerUnknown:
                break
        # That there is none any more changes what is read, too.
        for update in updates:
            await self._tell(request, update)

    async def _tell(self, request: RequestContext, notification: Any) -> None:
        await request.session.send_notification(notification, related_request_id=request.request_id)

    def _task(self, job: Job, meta: dict[str, Any]) -> TaskNotification:
        return TaskNotification(params=TaskParametersOfNotification.model_validate({**self._tasks.details(job), "_meta": meta}))

    async def _until_over(self, watching: list[Coroutine[Any, Any, None]]) -> None:
        """Watches until all of it has ended, nobody may listen any more, or the gateway stops."""

        async def watch() -> None:
            async with asyncio.TaskGroup() as group:
                for each in watching:
                    group.create_task(each)

        told = asyncio.create_task(watch())
        ends = [told, asyncio.create_task(self._callers.until_invalid()), asyncio.create_task(self._closing.wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if told.done():
                told.result()
        finally:
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)


def _task_ids(wanted: SubscriptionFilter) -> list[str]:
    given = (wanted.model_extra or {}).get(_TASK_IDS)
    if given is None:
        return []
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise MCPError(INVALID_PARAMS, f"{_TASK_IDS} has to be a list of ids.")
    return list(dict.fromkeys(given))


def _named(addresses: Iterable[str], scheme: str) -> dict[str, str]:
    """What the addresses of a scheme name, by address."""
    return {address: name for address in addresses if (name := part_of(address, scheme)) is not None}


def _updates(named: Mapping[str, str], name: str, meta: dict[str, Any]) -> list[ResourceUpdatedNotification]:
    """What tells that something has changed, under each address that was given for it."""
    return [_updated(address, meta) for address, wanted in named.items() if wanted == name]


def _updated(address: str, meta: dict[str, Any]) -> ResourceUpdatedNotification:
    return ResourceUpdatedNotification(params=ResourceUpdatedNotificationParams(uri=address, _meta=meta))
