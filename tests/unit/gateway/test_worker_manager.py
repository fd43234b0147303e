"""What `worker_manager` answers."""

from __future__ import annotations

from typing import Any

import pytest

from headrace import CallContext, ToolCall, ToolRefusal, ToolSuccess
from headrace_gateway import ToolServices, built_in_tools
from support.jobs import InMemoryJobs


async def call(jobs: InMemoryJobs, arguments: dict[str, Any], tenant: str = "default") -> ToolSuccess | ToolRefusal:
    made = ToolCall(name="worker_manager", arguments=arguments, context=CallContext(user_id="ann"))
    return await built_in_tools().dispatch(made, ToolServices(jobs=jobs), tenant=tenant)


async def test_workers_are_listed_also_when_nobody_runs_them() -> None:
    answer = await call(InMemoryJobs(live={"send_digest": 2}), {"action": "list_workers"})
    assert isinstance(answer, ToolSuccess)
    assert {worker["name"]: worker["liveInstances"] for worker in answer.data["workers"]} == {
        "memory_compaction_worker": 0,
        "send_digest": 2,
        "janitor": 0,
    }


async def test_jobs_have_every_column_also_without_a_value() -> None:
    answer = await call(InMemoryJobs(), {"action": "list_jobs"})
    assert isinstance(answer, ToolSuccess)
    assert answer.data["nextCursor"] is None
    [job] = answer.data["jobs"]
    assert {"id", "workerName", "status", "createdAt", "updatedAt", "args", "ctx", "error"} <= set(job)


async def test_filters_reach_the_view_and_the_context_is_none() -> None:
    jobs = InMemoryJobs()
    given = {
        "status": "failed",
        "workerName": "send_digest",
        "userId": "bob",
        "conversationId": "c2",
        "limit": 5,
        "cursor": "abc",
    }
    await call(jobs, {"action": "list_jobs", **given}, tenant="acme")
    await call(jobs, {"action": "list_jobs"})
    assert jobs.listed == [
        {
            "tenant": "acme",
            "status": "failed",
            "worker_name": "send_digest",
            "user_id": "bob",
            "conversation_id": "c2",
            "limit": 5,
            "cursor": "abc",
        },
        {
            "tenant": "default",
            "status": None,
            "worker_name": None,
            "user_id": None,
            "conversation_id": None,
            "limit": 20,
            "cursor": None,
        },
    ]


@pytest.mark.parametrize("filter_name", ["status", "workerName", "userId", "conversationId", "limit", "cursor"])
async def test_a_filter_of_jobs_is_refused_for_workers(filter_name: str) -> None:
    value: Any = {"status": "failed", "limit": 5}.get(filter_name, "x")
    answer = await call(InMemoryJobs(), {"action": "list_workers", filter_name: value})
    assert isinstance(answer, ToolRefusal)
    assert answer.error.code == "arguments_invalid"
    assert answer.error.message.startswith(filter_name)


async def test_null_is_the_same_as_left_out() -> None:
    nothing = dict.fromkeys(["status", "workerName", "userId", "conversationId", "limit", "cursor"])
    assert isinstance(await call(InMemoryJobs(), {"action": "list_workers", **nothing}), ToolSuccess)
    assert isinstance(await call(InMemoryJobs(), {"action": "list_jobs", **nothing}), ToolSuccess)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"action": "get_job"},
        {"action": "list_jobs", "limit": 0},
        {"action": "list_jobs", "limit": 101},
        {"action": "list_jobs", "limit": "5"},
        {"action": "list_jobs", "limit": True},
        {"action": "list_jobs", "status": "done"},
        {"action": "list_jobs", "worker_name": "x"},
        {"action": "list_jobs", "tenant": "acme"},
    ],
)
async def test_wrong_arguments_are_refused(arguments: dict[str, Any]) -> None:
    jobs = InMemoryJobs()
    answer = await call(jobs, arguments)
    assert isinstance(answer, ToolRefusal)
    assert answer.error.code == "arguments_invalid"
    assert jobs.listed == []
