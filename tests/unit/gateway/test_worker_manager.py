"""What `worker_manager` answers."""

from __future__ import annotations

from typing import Any

import pytest

from headrace import (
    BrokerUnreachable,
    CallContext,
    Job,
    JobNotCancellable,
    JobNotRetriable,
    ToolCall,
    ToolRefusal,
    ToolSuccess,
    WorkerManagerArguments,
)
from headrace_gateway import built_in_tools
from headrace_gateway.tools.worker_manager import worker_manager_tool
from support.jobs import InMemoryJobs, a_job, operations_of


async def call(jobs: InMemoryJobs, arguments: dict[str, Any], tenant: str = "default") -> ToolSuccess | ToolRefusal:
    made = ToolCall(name="worker_manager", arguments=arguments, context=CallContext(user_id="ann"))
    return await built_in_tools().dispatch(made, operations_of(jobs, tenant=tenant))


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
        {"action": "remove_job"},
        {"action": "get_job"},
        {"action": "retry_job", "jobId": None},
        {"action": "cancel_job"},
        {"action": "cancel_job", "jobId": "job-of-default", "status": "queued"},
        {"action": "get_job", "jobId": ""},
        {"action": "get_job", "jobId": "lease/x"},
        {"action": "get_job", "jobId": "job-of-default", "status": "failed"},
        {"action": "retry_job", "jobId": "job-of-default", "limit": 5},
        {"action": "list_jobs", "jobId": "job-of-default"},
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
    assert (jobs.listed, jobs.retried, jobs.cancelled) == ([], [], [])


async def test_a_job_is_got_whole_and_only_by_its_tenant() -> None:
    for tenant, found in (("acme", True), ("default", False)):
        answer = await call(InMemoryJobs(), {"action": "get_job", "jobId": "job-of-acme"}, tenant=tenant)
        if found:
            assert isinstance(answer, ToolSuccess)
            assert (answer.data["job"]["id"], answer.data["job"]["result"]) == ("job-of-acme", {"whole": True})
        else:
            assert isinstance(answer, ToolRefusal)
            assert (answer.error.code, "job-of-acme" in answer.error.message) == ("job_unknown", True)


async def test_a_retry_is_asked_for_the_tenant_and_answers_the_new_job() -> None:
    jobs = InMemoryJobs()
    answer = await call(jobs, {"action": "retry_job", "jobId": "job-1"}, tenant="acme")
    assert isinstance(answer, ToolSuccess)
    assert (answer.data["job"]["id"], answer.data["job"]["retryOf"]) == ("job-1-again", "job-1")
    assert jobs.retried == [{"job_id": "job-1", "tenant": "acme", "timeout": 10.0}]


async def test_a_job_that_has_not_failed_is_not_retried_and_the_agent_is_told() -> None:
    jobs = InMemoryJobs(failure=JobNotRetriable("Job j has not failed: it is running."))
    answer = await call(jobs, {"action": "retry_job", "jobId": "j"})
    assert isinstance(answer, ToolRefusal)
    assert (answer.error.code, answer.error.message) == ("job_not_retriable", "Job j has not failed: it is running.")


async def test_a_cancellation_is_asked_for_the_tenant_and_answers_the_job_as_it_stands() -> None:
    jobs = InMemoryJobs()
    answer = await call(jobs, {"action": "cancel_job", "jobId": "job-1"}, tenant="acme")
    assert isinstance(answer, ToolSuccess)
    assert (answer.data["job"]["id"], answer.data["job"]["status"]) == ("job-1", "cancelled")
    assert jobs.cancelled == [{"job_id": "job-1", "tenant": "acme", "wait": 0.0, "timeout": 10.0}]
    assert jobs.waited == []


async def test_a_job_that_is_to_be_cancelled_is_told_of_though_its_end_cannot_be_waited_for() -> None:
    class CannotBeRead(InMemoryJobs):
        async def cancel_job(self, job_id: str, /, **options: Any) -> Job:
            await super().cancel_job(job_id, **options)
            return a_job(job_id, status="running")

        async def wait_for_job(self, job_id: str, /, *, tenant: str = "default", wait: float) -> Any:
            raise BrokerUnreachable("gone")

    jobs = CannotBeRead()
    answer = await call(jobs, {"action": "cancel_job", "jobId": "job-1"})
    assert isinstance(answer, ToolSuccess)
    assert answer.data["job"]["status"] == "running"
    assert len(jobs.cancelled) == 1


async def test_the_end_of_a_job_that_runs_is_waited_for_when_it_is_cancelled() -> None:
    class Running(InMemoryJobs):
        async def cancel_job(self, job_id: str, /, **options: Any) -> Job:
            return a_job(job_id, status="running")

    jobs = Running()
    answer = await call(jobs, {"action": "cancel_job", "jobId": "job-1"}, tenant="acme")
    assert isinstance(answer, ToolSuccess)
    assert answer.data["job"]["status"] == "completed"
    assert jobs.waited == [{"job_id": "job-1", "tenant": "acme", "wait": 2.0}]


async def test_a_job_that_has_ended_is_not_cancelled_and_the_agent_is_told() -> None:
    jobs = InMemoryJobs(failure=JobNotCancellable("Job j has ended: it is completed."))
    answer = await call(jobs, {"action": "cancel_job", "jobId": "j"})
    assert isinstance(answer, ToolRefusal)
    assert (answer.error.code, answer.error.message) == ("job_not_cancellable", "Job j has ended: it is completed.")


async def test_what_belongs_to_another_action_is_told_with_that_action() -> None:
    answer = await call(InMemoryJobs(), {"action": "list_jobs", "jobId": "j"})
    assert isinstance(answer, ToolRefusal)
    assert answer.error.message == (
        "jobId cannot be given with action 'list_jobs': leave it out, or use action 'get_job' or 'retry_job' or 'cancel_job'."
    )


def test_no_status_is_offered_that_no_job_can_have() -> None:
    offered = worker_manager_tool().input_schema["properties"]["status"]
    [statuses] = [part["enum"] for part in offered["anyOf"] if "enum" in part]
    assert statuses == ["queued", "running", "completed", "failed", "cancelled"]


async def test_a_status_that_no_job_has_yet_is_taken() -> None:
    asked = WorkerManagerArguments.model_validate_json('{"action": "list_jobs", "status": "scheduled"}', strict=True)
    assert asked.status == "scheduled"
