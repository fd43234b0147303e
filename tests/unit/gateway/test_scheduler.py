"""What `scheduler` makes of a call, and what it refuses."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headrace import (
    BrokerUnreachable,
    CallContext,
    IdempotencyConflict,
    Job,
    PayloadTooLarge,
    ToolCall,
    ToolRefusal,
    ToolSuccess,
    WorkerDefinition,
    WorkerUnknown,
)
from headrace_gateway import Scope, built_in_tools
from headrace_gateway.http.answers import STATUSES
from support.jobs import DIGEST_WORKER, InMemoryJobs, operations_of

AT_HOME = CallContext(user_id="ann", conversation_id="c1", source="assistant")


async def call(
    jobs: InMemoryJobs, arguments: dict[str, Any], context: CallContext = AT_HOME, tenant: str = "default"
) -> ToolSuccess | ToolRefusal:
    made = ToolCall(name="scheduler", arguments=arguments, context=context)
    return await built_in_tools().dispatch(made, operations_of(jobs, tenant=tenant, timeout=3.5))


async def refusal(jobs: InMemoryJobs, arguments: dict[str, Any], context: CallContext = AT_HOME) -> tuple[str, str]:
    answer = await call(jobs, arguments, context)
    assert isinstance(answer, ToolRefusal)
    assert jobs.enqueued == []
    return answer.error.code, answer.error.message


async def test_memory_compaction_takes_user_and_conversation_from_the_context() -> None:
    jobs = InMemoryJobs()
    answer = await call(jobs, {"kind": "memory_compaction"})
    assert answer == ToolSuccess(data={"scheduled": True, "jobId": "job-1", "workerName": "memory_compaction_worker"})
    [asked] = jobs.enqueued
    assert asked["worker"] == "memory_compaction_worker"
    assert asked["args"] == {"userId": "ann", "conversationId": "c1"}
    assert asked["ctx"] == {"userId": "ann", "conversationId": "c1", "source": "assistant"}
    assert asked["timeout"] == 3.5


async def test_what_is_given_overrides_the_context() -> None:
    jobs = InMemoryJobs()
    await call(
        jobs,
        {"kind": "memory_compaction", "userId": "bob", "conversationId": "c2", "title": "Trip", "content": "We go by train."},
    )
    [asked] = jobs.enqueued
    assert asked["args"] == {"userId": "bob", "conversationId": "c2", "title": "Trip", "content": "We go by train."}
    assert asked["ctx"] == {"userId": "bob", "conversationId": "c2", "source": "assistant"}


async def test_the_context_goes_with_the_job_whole() -> None:
    jobs = InMemoryJobs()
    context = CallContext.model_validate({"userId": "ann", "conversationId": "c1", "traceId": "t-9"})
    await call(jobs, {"kind": "digest", "args": {"to": ["x"]}, "conversationId": "c7"}, context)
    assert jobs.enqueued[0]["ctx"] == {"userId": "ann", "conversationId": "c7", "traceId": "t-9"}


async def test_the_tenant_is_the_callers() -> None:
    jobs = InMemoryJobs()
    await call(jobs, {"kind": "memory_compaction"}, tenant="acme")
    assert jobs.enqueued[0]["tenant"] == "acme"


async def test_a_request_has_the_key_that_its_caller_gives_it() -> None:
    jobs = InMemoryJobs()
    await call(jobs, {"kind": "digest", "args": {"to": ["x"]}, "idempotencyKey": "turn-7"})
    await call(jobs, {"kind": "digest", "args": {"to": ["x"]}})
    assert [asked["idempotency_key"] for asked in jobs.enqueued] == ["turn-7", None]


async def test_an_ordering_key_is_handed_on() -> None:
    jobs = InMemoryJobs()
    await call(jobs, {"kind": "digest", "args": {"to": ["x"]}, "orderingKey": "ann"})
    assert jobs.enqueued[0]["ordering_key"] == "ann"


async def test_who_waits_gets_the_job_too() -> None:
    jobs = InMemoryJobs()
    answer = await call(jobs, {"kind": "digest", "args": {"to": ["x"]}, "wait": 2.5}, tenant="acme")
    assert isinstance(answer, ToolSuccess)
    assert (answer.data["scheduled"], answer.data["jobId"], answer.data["job"]["status"]) == (True, "job-1", "completed")
    assert jobs.waited == [{"job_id": "job-1", "tenant": "acme", "wait": 2.5}]


async def test_who_does_not_wait_gets_the_receipt_alone() -> None:
    jobs = InMemoryJobs()
    answer = await call(jobs, {"kind": "digest", "args": {"to": ["x"]}})
    assert isinstance(answer, ToolSuccess)
    assert "job" not in answer.data
    assert jobs.waited == []


async def test_an_accepted_job_has_its_receipt_though_it_cannot_be_waited_for() -> None:
    class CannotBeRead(InMemoryJobs):
        async def wait_for_job(self, job_id: str, /, *, tenant: str = "default", wait: float) -> Any:
            raise BrokerUnreachable("gone")

    jobs = CannotBeRead()
    answer = await call(jobs, {"kind": "digest", "args": {"to": ["x"]}, "wait": 1})
    assert isinstance(answer, ToolSuccess)
    assert answer.data["job"]["status"] == "queued"
    assert len(jobs.enqueued) == 1


async def test_who_may_not_see_jobs_is_told_before_any_is_accepted() -> None:
    jobs = InMemoryJobs()
    made = ToolCall(name="scheduler", arguments={"kind": "digest", "args": {"to": ["x"]}, "wait": 1})
    operations = operations_of(jobs, scopes=frozenset({Scope.JOBS_WRITE, Scope.JOBS_ACT_AS}))
    answer = await built_in_tools().dispatch(made, operations)
    assert isinstance(answer, ToolRefusal)
    assert answer.error.code == "forbidden"
    assert "jobs:read" in answer.error.message
    assert jobs.enqueued == []


async def test_nulls_for_what_is_left_out_do_not_reach_the_worker() -> None:
    jobs = InMemoryJobs()
    jobs.definitions[1].arguments_schema["properties"]["note"] = {"type": "string"}
    try:
        await call(jobs, {"kind": "digest", "args": {"to": ["x"], "note": None, "when": None}})
    finally:
        del jobs.definitions[1].arguments_schema["properties"]["note"]
    assert jobs.enqueued[0]["args"] == {"to": ["x"], "when": None}


async def test_a_key_of_another_request_is_a_conflict() -> None:
    jobs = InMemoryJobs(failure=IdempotencyConflict("The idempotency key 'turn-7' belongs to job j: give another key."))
    code, message = await refusal(jobs, {"kind": "digest", "args": {"to": ["y"]}, "idempotencyKey": "turn-7"})
    assert (code, message) == ("idempotency_conflict", str(jobs.failure))
    assert STATUSES[code] == 409


@pytest.mark.parametrize(
    ("context", "missing"),
    [
        (CallContext(), "userId and conversationId"),
        (CallContext(user_id="ann"), "conversationId"),
        (CallContext(conversation_id="c1"), "userId"),
    ],
)
async def test_nobodys_memory_is_refused_with_what_to_give(context: CallContext, missing: str) -> None:
    code, message = await refusal(InMemoryJobs(), {"kind": "memory_compaction"}, context)
    assert code == "arguments_invalid"
    assert f"give {missing}," in message


async def test_other_kinds_get_args() -> None:
    jobs = InMemoryJobs()
    await call(jobs, {"kind": "digest", "args": {"to": ["ann@example"], "when": 5}})
    assert (jobs.enqueued[0]["worker"], jobs.enqueued[0]["args"]) == ("send_digest", {"to": ["ann@example"], "when": 5})


async def test_args_may_be_left_out() -> None:
    jobs = InMemoryJobs(definitions=[WorkerDefinition(name="tidy", description="", category="x", kind="tidy")])
    await call(jobs, {"kind": "tidy"})
    assert jobs.enqueued[0]["args"] == {}


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({}, "args: 'to' is a required property"),
        ({"to": [5]}, "args.to.0: 5 is not of type 'string'"),
        ({"to": []}, "args.to: [] should be non-empty"),
        ({"to": ["x"], "when": "noon"}, "args.when: 'noon' is not of type 'integer'"),
    ],
)
async def test_args_that_do_not_fit_are_refused_with_the_place(args: dict[str, Any], told: str) -> None:
    code, message = await refusal(InMemoryJobs(), {"kind": "digest", "args": args})
    assert code == "arguments_invalid"
    assert "Arguments of send_digest are wrong" in message
    assert told in message


async def test_a_long_wrong_value_is_not_repeated_whole() -> None:
    _, message = await refusal(InMemoryJobs(), {"kind": "digest", "args": {"to": "x" * 50_000}})
    assert len(message) < 500
    assert "is not of type 'array'" in message


@pytest.mark.parametrize("given", [{"title": "T"}, {"content": "C"}])
async def test_title_and_content_go_with_memory_only(given: dict[str, str]) -> None:
    code, message = await refusal(InMemoryJobs(), {"kind": "digest", "args": {"to": ["x"]}, **given})
    assert code == "arguments_invalid"
    assert message.startswith(next(iter(given)))
    assert "put it into args" in message


async def test_args_do_not_go_with_memory() -> None:
    code, message = await refusal(InMemoryJobs(), {"kind": "memory_compaction", "args": {"userId": "bob"}})
    assert code == "arguments_invalid"
    assert "beside kind" in message


async def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    code, message = await refusal(InMemoryJobs(), {"kind": "send_digest"})
    assert code == "kind_unknown"
    assert "digest, memory_compaction" in message
    assert "janitor" not in message


async def test_a_worker_that_was_published_a_moment_ago_is_found() -> None:
    jobs = InMemoryJobs(definitions=[], just_published=[DIGEST_WORKER])
    await call(jobs, {"kind": "digest", "args": {"to": ["x"]}})
    assert jobs.enqueued[0]["worker"] == "send_digest"


async def test_without_any_worker_the_refusal_says_so() -> None:
    code, message = await refusal(InMemoryJobs(definitions=[]), {"kind": "memory_compaction"})
    assert code == "kind_unknown"
    assert "no worker is known yet" in message


async def test_of_two_workers_of_a_kind_the_one_that_runs_is_taken() -> None:
    second = DIGEST_WORKER.model_copy(update={"name": "send_digest_2"})
    jobs = InMemoryJobs(definitions=[DIGEST_WORKER, second], live={"send_digest_2": 1})
    await call(jobs, {"kind": "digest", "args": {"to": ["x"]}})
    assert jobs.enqueued[0]["worker"] == "send_digest_2"


@pytest.mark.parametrize("live", [{}, {"send_digest": 1, "send_digest_2": 1}])
async def test_two_workers_of_a_kind_that_cannot_be_told_apart_are_refused(live: dict[str, int]) -> None:
    second = DIGEST_WORKER.model_copy(update={"name": "send_digest_2"})
    jobs = InMemoryJobs(definitions=[DIGEST_WORKER, second], live=live)
    code, message = await refusal(jobs, {"kind": "digest", "args": {"to": ["x"]}})
    assert code == "kind_ambiguous"
    assert "send_digest, send_digest_2" in message


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "kind: Field required"),
        ({"kind": 5}, "kind: Input should be a valid string"),
        ({"kind": ""}, "kind: "),
        ({"kind": "memory_compaction", "user_id": "bob"}, "user_id: "),
        ({"kind": "memory_compaction", "userID": "bob"}, "userID: "),
        ({"kind": "memory_compaction", "userId": "x" * 201}, "userId: "),
        ({"kind": "digest", "args": [1]}, "args: "),
    ],
)
async def test_arguments_are_taken_as_the_schema_says(arguments: dict[str, Any], told: str) -> None:
    code, message = await refusal(InMemoryJobs(), arguments)
    assert code == "arguments_invalid"
    assert told in message


@pytest.mark.parametrize("unusable", [{"type": "nonsense"}, {"$ref": "urn:nowhere"}, {"$ref": "#/$defs/gone"}])
async def test_a_worker_without_a_usable_schema_takes_any_args(unusable: dict[str, Any]) -> None:
    definition = DIGEST_WORKER.model_copy(update={"arguments_schema": unusable})
    jobs = InMemoryJobs(definitions=[definition])
    await call(jobs, {"kind": "digest", "args": {"anything": 1}})
    assert jobs.enqueued[0]["args"] == {"anything": 1}


async def test_a_schema_makes_the_gateway_fetch_nothing() -> None:
    connections = 0

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        schema = {"$ref": f"http://127.0.0.1:{port}/schema"}
        jobs = InMemoryJobs(definitions=[DIGEST_WORKER.model_copy(update={"arguments_schema": schema})])
        # Large arguments are checked in a thread, so that this server could answer.
        await call(jobs, {"kind": "digest", "args": {"text": "x" * 100_000}})
        assert len(jobs.enqueued) == 1
        # Connections are answered in their order: when ours is, an earlier one has been counted.
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.read()
        writer.close()
    assert connections == 1


async def test_large_arguments_do_not_hold_up_others() -> None:
    schema = {"properties": {"to": {"items": {"properties": {"n": {"type": "integer"}}}}}}
    jobs = InMemoryJobs(definitions=[DIGEST_WORKER.model_copy(update={"arguments_schema": schema})])
    large = asyncio.create_task(call(jobs, {"kind": "digest", "args": {"to": [{"n": 1}] * 20_000}}))
    turns = 0
    while not large.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 5
    assert len(jobs.enqueued) == 1
    assert isinstance(await call(jobs, {"kind": "digest", "args": {"to": [{"n": 1}] * 20_000 + [{"n": "x"}]}}), ToolRefusal)


async def test_what_the_queue_refuses_is_told_as_it_is() -> None:
    told = await refusal(InMemoryJobs(failure=PayloadTooLarge("too much")), {"kind": "memory_compaction"})
    assert told == ("payload_too_large", "too much")


class Removed(InMemoryJobs):
    """Each worker is removed before its first job is accepted."""

    async def enqueue(self, worker: str, *arguments: Any, **options: Any) -> Job:
        self.definitions = [each for each in self.definitions if each.name != worker]
        raise WorkerUnknown(f"There is no worker {worker!r}.")


async def test_a_worker_that_was_removed_just_now_does_no_kind_of_work() -> None:
    told = await refusal(Removed(), {"kind": "digest", "args": {"to": ["x"]}})
    assert told == ("kind_unknown", "No worker does 'digest'. The kinds are: memory_compaction.")
