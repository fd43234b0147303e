"""`subscriptions/listen`: a stream that tells of each change of some jobs, as resources and as tasks, up to their end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
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

from headrace import Job, JobUnknown, WatchInterrupted
from headrace_gateway.mcp.callers import Callers, RequestContext
from headrace_gateway.mcp.resources import JOB, part_of
from headrace_gateway.mcp.tasks import Tasks, follows_tasks, tasks_missing

MOST_SUBSCRIBED: Final = 100
_TASK_IDS: Final = "taskIds"


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
        jobs = {address: job_id for address in addresses if (job_id := part_of(address, JOB)) is not None}
        seen = await self._visible({*jobs.values(), *task_ids})
        jobs = {address: job_id for address, job_id in jobs.items() if job_id in seen}
        task_ids = [task_id for task_id in task_ids if task_id in seen]
        meta: dict[str, Any] = {SUBSCRIPTION_ID_META_KEY: request.request_id}
        self._callers.began()
        await self._acknowledge(request, list(jobs), task_ids, meta)
        watching = [self._tell_of(request, job_id, jobs, job_id in task_ids, meta) for job_id in seen]
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

    async def _tell_of(
        self, request: RequestContext, job_id: str, addresses: dict[str, str], as_task: bool, meta: dict[str, Any]
    ) -> None:
        mine = [address for address, wanted in addresses.items() if wanted == job_id]
        try:
            async with aclosing(await self._callers.operations().watch_job(job_id)) as states:
                async for job in states:
                    for address in mine:
                        await self._tell(request, _updated(address, meta))
                    if as_task:
                        await self._tell(request, self._task(job, meta))
        except (JobUnknown, WatchInterrupted):
            # It is over with this one. Whoever wants to know more reads it, and listens anew.
            return

    async def _tell(self, request: RequestContext, notification: Any) -> None:
        await request.session.send_notification(notification, related_request_id=request.request_id)

    def _task(self, job: Job, meta: dict[str, Any]) -> TaskNotification:
        return TaskNotification(params=TaskParametersOfNotification.model_validate({**self._tasks.details(job), "_meta": meta}))

    async def _until_over(self, watching: list[Any]) -> None:
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


def _updated(address: str, meta: dict[str, Any]) -> ResourceUpdatedNotification:
    return ResourceUpdatedNotification(params=ResourceUpdatedNotificationParams(uri=address, _meta=meta))
