"""What a principal can do: in its own tenant, within its scopes, and for the users for whom it may act."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from headrace import (
    ArgumentsInvalid,
    BrokerUnreachable,
    CallContext,
    ClosedModel,
    ConfigurationError,
    EnqueueTimeout,
    JobUnknown,
    LastingRefusal,
    NewEntry,
    ToolCall,
    ToolRefusal,
    WireModel,
    WorkerUnknown,
)
from headrace_gateway import Caller, ToolAnnotations, ToolDefinition, ToolRegistry, built_in_tools
from headrace_gateway.access import ALL_SCOPES, AccessDenied, Scope
from headrace_gateway.operations import OPERATIONS, Operations
from headrace_gateway.tools.refusals import ToolRefused
from support.jobs import InMemoryJobs, a_job, operations_of

DOINGS: dict[str, Callable[[Operations], Awaitable[Any]]] = {
    "enqueue": lambda operations: operations.enqueue("send_digest", {"to": ["x"]}),
    "list_workers": lambda operations: operations.list_workers(),
    "list_jobs": lambda operations: operations.list_jobs(),
    "wait_for_job": lambda operations: operations.wait_for_job("job-of-default", wait=1),
    "get_job": lambda operations: operations.get_job("job-of-default"),
    "retry_job": lambda operations: operations.retry_job("job-of-default"),
    "cancel_job": lambda operations: operations.cancel_job("job-of-default"),
    "watch_job": lambda operations: operations.watch_job("job-of-default"),
    "watch_jobs": lambda operations: operations.watch_jobs(),
    "watch_worker": lambda operations: operations.watch_worker("send_digest"),
    "append_entries": lambda operations: operations.append_entries("c", [NewEntry(role="user", content="x")], user_id="ann"),
    "list_entries": lambda operations: operations.list_entries("c", user_id="ann"),
}


class JobsOfUsers(InMemoryJobs):
    """Each tenant has one job, of the user `ann`."""

    async def get_job(self, job_id: str, /, *, tenant: str = "default", fresh: bool = False) -> Any:
        found = await super().get_job(job_id, tenant=tenant)
        return found and a_job(job_id, tenant=tenant, ctx=CallContext(user_id="ann"))


def test_every_operation_is_tried_here() -> None:
    assert DOINGS.keys() == OPERATIONS.keys()


@pytest.mark.parametrize("name", sorted(OPERATIONS))
async def test_every_operation_takes_its_scope(name: str) -> None:
    scope = OPERATIONS[name].scope
    jobs = InMemoryJobs()
    with pytest.raises(AccessDenied, match=scope.value):
        await DOINGS[name](operations_of(jobs, scopes=ALL_SCOPES - {scope}))
    assert (jobs.enqueued, jobs.listed, jobs.retried, jobs.cancelled) == ([], [], [], [])
    await DOINGS[name](operations_of(jobs, scopes=frozenset({scope, Scope.JOBS_ACT_AS})))


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_no_operation_takes_a_tenant(name: str) -> None:
    assert "tenant" not in inspect.signature(getattr(Operations, name)).parameters


def for_one_user(jobs: InMemoryJobs, subject: str) -> Operations:
    return operations_of(jobs, subject=subject, scopes=ALL_SCOPES - {Scope.JOBS_ACT_AS})


async def test_who_may_act_for_one_user_enqueues_for_that_one() -> None:
    jobs = InMemoryJobs()
    operations = for_one_user(jobs, "ann")
    for context in (None, CallContext(conversation_id="c"), CallContext(user_id="ann")):
        await operations.enqueue("send_digest", {"to": ["x"]}, context)
    assert [asked["ctx"]["userId"] for asked in jobs.enqueued] == ["ann"] * 3
    with pytest.raises(AccessDenied, match="jobs:act-as"):
        await operations.enqueue("send_digest", {"to": ["x"]}, CallContext(user_id="bob"))
    assert len(jobs.enqueued) == 3


@pytest.mark.parametrize(("scopes", "user"), [(ALL_SCOPES, None), (ALL_SCOPES - {Scope.JOBS_ACT_AS}, "ann")])
async def test_workers_are_counted_by_what_the_principal_may_see(scopes: frozenset[Scope], user: str | None) -> None:
    jobs = InMemoryJobs()
    [first, *_] = await operations_of(jobs, tenant="acme", subject="ann", scopes=scopes).list_workers()
    assert jobs.counted == [{"tenant": "acme", "user_id": user}]
    assert (first.backlog, first.running, first.failed) == (3, 1, 2)


@pytest.mark.parametrize(("scopes", "user"), [(ALL_SCOPES, None), (ALL_SCOPES - {Scope.JOBS_ACT_AS}, "ann")])
async def test_a_worker_is_watched_for_what_the_principal_may_see(scopes: frozenset[Scope], user: str | None) -> None:
    jobs = InMemoryJobs()
    operations = operations_of(jobs, tenant="acme", subject="ann", scopes=scopes)
    assert [each.name async for each in await operations.watch_worker("send_digest")] == ["send_digest"]
    assert jobs.counted == [{"tenant": "acme", "user_id": user}]
    with pytest.raises(WorkerUnknown, match="nobody"):
        await operations.watch_worker("nobody")


async def test_who_may_act_for_one_user_lists_that_users_jobs() -> None:
    jobs = InMemoryJobs()
    await for_one_user(jobs, "ann").list_jobs()
    assert jobs.listed[0]["user_id"] == "ann"
    with pytest.raises(AccessDenied):
        await for_one_user(jobs, "ann").list_jobs(user_id="bob")


@pytest.mark.parametrize("name", ["get_job", "wait_for_job", "retry_job", "cancel_job", "watch_job"])
async def test_another_users_job_is_as_unknown_as_one_that_there_is_not(name: str) -> None:
    jobs = JobsOfUsers()
    await DOINGS[name](for_one_user(jobs, "ann"))
    with pytest.raises(JobUnknown) as foreign:
        await DOINGS[name](for_one_user(jobs, "bob"))
    wait = {"wait": 1.0} if name == "wait_for_job" else {}
    with pytest.raises(JobUnknown) as missing:
        await getattr(for_one_user(jobs, "bob"), name)("job-of-nobody", **wait)
    assert str(foreign.value).replace("job-of-default", "") == str(missing.value).replace("job-of-nobody", "")


def own_tool(
    handle: Callable[[ClosedModel, Caller], Awaitable[WireModel]], *, read_only: bool = False, repeatable: bool = False
) -> ToolDefinition[ClosedModel]:
    """A tool of one's own, without arguments."""
    return ToolDefinition(
        name="own",
        description="Does something.",
        arguments=ClosedModel,
        answers=(WireModel,),
        annotations=ToolAnnotations(read_only=read_only),
        handler=handle,
        repeatable=repeatable,
    )


def failing_tool(name: str, failure: Exception, *, repeatable: bool = False) -> ToolDefinition[ClosedModel]:
    """A tool that does one of the things there are to do, and then fails."""

    async def handle(arguments: ClosedModel, caller: Caller) -> WireModel:
        await DOINGS[name](caller.operations)
        raise failure

    return own_tool(handle, repeatable=repeatable)


@pytest.mark.parametrize("failure", [BrokerUnreachable("gone"), ConfigurationError("wrong")], ids=["broker", "settings"])
@pytest.mark.parametrize("name", ["enqueue", "retry_job", "cancel_job", "list_jobs"])
async def test_a_tool_that_fails_after_something_was_accepted_does_not_say_that_nothing_was(
    name: str, failure: Exception
) -> None:
    tool = failing_tool(name, failure)
    answer = await ToolRegistry([tool]).dispatch(ToolCall(name="own"), operations_of(InMemoryJobs()))
    assert isinstance(answer, ToolRefusal)
    assert ("Nothing was accepted" in answer.error.message) is (name == "list_jobs")
    assert ("may be accepted" in answer.error.message) is (name != "list_jobs")


@pytest.mark.parametrize("repeatable", [False, True])
@pytest.mark.parametrize(
    ("name", "failure"),
    [
        ("enqueue", BrokerUnreachable("gone")),
        ("retry_job", BrokerUnreachable("gone")),
        ("append_entries", BrokerUnreachable("gone")),
        ("list_jobs", BrokerUnreachable("gone")),
        ("enqueue", EnqueueTimeout("job", may_be_accepted=True, seconds=1)),
        ("enqueue", EnqueueTimeout("job", may_be_accepted=False, seconds=1)),
    ],
    ids=["enqueued", "retried", "appended", "listed", "enqueued-or-not", "not-enqueued"],
)
async def test_a_refusal_lasts_where_a_call_done_once_more_could_make_a_second_job(
    name: str, failure: Exception, repeatable: bool
) -> None:
    class Late(InMemoryJobs):
        async def enqueue(self, *_: Any, **__: Any) -> Any:
            raise failure

    late = isinstance(failure, EnqueueTimeout)

    tool = failing_tool(name, failure, repeatable=repeatable)
    jobs = Late() if late else InMemoryJobs()
    answer = await ToolRegistry([tool]).dispatch(ToolCall(name="own", id="a"), operations_of(jobs))
    assert isinstance(answer, ToolRefusal)
    maybe = failure.may_be_accepted if isinstance(failure, EnqueueTimeout) else name != "list_jobs"
    # Whatever it did besides, with headrace or elsewhere.
    assert isinstance(answer, LastingRefusal) is not repeatable
    # Only of what may be done once more.
    assert ("the same callId" in answer.error.message) is (late and maybe and repeatable)


@pytest.mark.parametrize(("tool", "repeatable"), [("scheduler", True), ("worker_manager", True), ("other", True), ("own", False)])
def test_which_tools_know_a_call_again(tool: str, repeatable: bool) -> None:
    async def handle(arguments: ClosedModel, caller: Caller) -> WireModel:
        return WireModel()

    own = own_tool(handle)
    assert ToolRegistry([*built_in_tools(), own]).is_repeatable(tool) is repeatable


async def test_whose_conversation_is_meant() -> None:
    jobs = InMemoryJobs()
    await for_one_user(jobs, "ann").list_entries("c")
    await for_one_user(jobs, "ann").append_entries("c", [NewEntry(role="user", content="x")])
    assert jobs.conversations == [("default", "ann", "c")] * 2
    for name in ("bob", "ann "):
        with pytest.raises(AccessDenied, match="jobs:act-as"):
            await for_one_user(jobs, "ann").list_entries("c", user_id=name)
    with pytest.raises(ArgumentsInvalid, match="userId is missing"):
        await operations_of(jobs).list_entries("c")
    assert len(jobs.conversations) == 2


@pytest.mark.parametrize(("name", "scope"), [("cancel_job", Scope.JOBS_CANCEL), ("retry_job", Scope.JOBS_WRITE)])
async def test_who_may_not_see_jobs_sees_nothing_of_one_that_they_change(name: str, scope: Scope) -> None:
    class Telling(InMemoryJobs):
        async def cancel_job(self, job_id: str, /, **options: Any) -> Any:
            return a_job(job_id, status="cancelled", args={"secret": 1}, ctx=CallContext(user_id="ann"), result={"secret": 2})

        retry_job = cancel_job

    may_see = await DOINGS[name](operations_of(Telling(), scopes=ALL_SCOPES))
    assert "secret" in str(may_see.to_wire())
    shown = await DOINGS[name](operations_of(Telling(), scopes=frozenset({scope, Scope.JOBS_ACT_AS})))
    assert (shown.id, shown.status) == (may_see.id, may_see.status)
    assert not {"secret", "ann"} & set(str(shown.to_wire()).replace("'", " ").split())


async def test_a_tool_that_meets_what_somebody_else_has_cancelled_refuses_and_its_own_cancellation_goes_on() -> None:
    waited: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def handle(arguments: ClosedModel, caller: Caller) -> WireModel:
        await waited
        return WireModel()

    tool = own_tool(handle)

    async def call() -> Any:
        return await ToolRegistry([tool]).dispatch(ToolCall(name="own"), operations_of(InMemoryJobs()))

    for cancelled in (True, False):
        waited = asyncio.get_running_loop().create_future()
        calling = asyncio.create_task(call())
        await asyncio.sleep(0)
        if cancelled:
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
        else:
            waited.cancel()
            answer = await calling
            assert isinstance(answer, ToolRefusal)
            assert answer.error.code == "internal_error"


async def test_the_code_of_a_refusal_can_be_sent_whatever_the_tool_says() -> None:
    async def handle(arguments: ClosedModel, caller: Caller) -> WireModel:
        raise ToolRefused("caf\ud800", "It is\ud800closed.")

    tool = own_tool(handle)
    answer = await ToolRegistry([tool]).dispatch(ToolCall(name="own"), operations_of(InMemoryJobs()))
    assert isinstance(answer, ToolRefusal)
    assert (answer.error.code, answer.error.message) == ("caf_", "It is closed.")


@pytest.mark.parametrize(
    ("error", "lasting"),
    [
        (ToolRefused("rate_limited", "The other side has had enough."), True),
        (RuntimeError("nobody expected this"), True),
        (ToolRefused("sold_out", "There is none left."), False),
    ],
    ids=["not-now", "unexpected", "its-own"],
)
@pytest.mark.parametrize("kind", ["own", "repeatable", "read-only"])
async def test_what_a_tool_has_begun_is_not_done_again_unless_that_changes_nothing(
    error: Exception, lasting: bool, kind: str
) -> None:
    async def handle(arguments: ClosedModel, caller: Caller) -> WireModel:
        raise error

    tool = own_tool(handle, read_only=kind == "read-only", repeatable=kind == "repeatable")
    answer = await ToolRegistry([tool]).dispatch(ToolCall(name="own", id="a"), operations_of(InMemoryJobs()))
    assert isinstance(answer, ToolRefusal)
    assert isinstance(answer, LastingRefusal) is (lasting and kind == "own")


async def test_what_is_refused_before_its_tool_begins_is_no_more_than_refused() -> None:
    async def handle(arguments: ClosedModel, caller: Caller) -> WireModel:
        raise AssertionError("it must not begin")

    def operation(arguments: Any) -> str:
        raise BrokerUnreachable("gone")

    tool = ToolDefinition(
        name="own",
        description="x",
        arguments=ClosedModel,
        answers=(WireModel,),
        annotations=ToolAnnotations(read_only=False),
        handler=handle,
        operation=operation,
    )
    begun: list[None] = []
    answer = await ToolRegistry([tool]).dispatch(
        ToolCall(name="own", id="a"), operations_of(InMemoryJobs()), began=lambda: begun.append(None)
    )
    assert isinstance(answer, ToolRefusal) and not isinstance(answer, LastingRefusal)
    assert (answer.error.code, begun) == ("broker_unavailable", [])
