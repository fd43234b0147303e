"""A call from its arrival to its end: whoever it is and however it ends, the audit is told once."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from headrace import AuditEntry, AuditTrail, JobUnknown, ToolCall
from headrace.settings import load_settings
from headrace_gateway import Gateway
from headrace_gateway.access import (
    LOCAL,
    Access,
    AccessDenied,
    Allowance,
    Anyone,
    Arrival,
    Audited,
    CredentialInvalid,
    Limits,
    Principal,
    RateLimited,
    TooManyInFlight,
    TrailAudit,
)
from support.access import HERE, RememberedAudit, a_principal
from support.jobs import InMemoryJobs

ANN = a_principal("ann")


class OneCredential:
    """Knows `good`, until it is revoked."""

    open_to_anyone = False
    trouble = None

    def __init__(self) -> None:
        self.revoked = asyncio.Event()

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def authenticate(self, credential: str | None) -> Principal:
        if credential != "good" or self.revoked.is_set():
            raise CredentialInvalid("It does not count.")
        return ANN

    def is_valid(self, principal: Principal) -> bool:
        return not self.revoked.is_set()

    async def until_invalid(self, principal: Principal) -> None:
        await self.revoked.wait()


def access(audit: RememberedAudit, authenticator: Any = None, **allowance: Any) -> Access:
    return Access(authenticator or OneCredential(), Limits(Allowance(**allowance)), audit, now=lambda: 1_769_850_900_123)


async def test_what_is_raised_is_the_outcome() -> None:
    audit = RememberedAudit()
    let_in = access(audit)
    async with let_in.admit(ANN, HERE, "scheduler") as admission:
        admission.called("enqueue")
        admission.called("get_job")
    for error, outcome in [
        (JobUnknown("x"), "job_unknown"),
        (ValueError("x"), "internal_error"),
        (asyncio.CancelledError(), "cancelled"),
    ]:
        with pytest.raises(type(error)):
            async with let_in.admit(ANN, HERE):
                raise error
        assert audit.told[-1].outcome == outcome
    first = audit.told[0]
    assert (first.at, first.principal, first.tool, first.action, first.outcome) == (
        1_769_850_900_123, ANN, "scheduler", "enqueue", "ok",
    )  # fmt: skip
    assert len(audit.told) == 4


async def test_nobody_knows_who_it_is() -> None:
    audit = RememberedAudit()
    for credential in (None, "", "bad"):
        with pytest.raises(CredentialInvalid):
            await access(audit).authenticate(credential, HERE)
    assert [(told.principal, told.outcome) for told in audit.told] == [(None, "unauthenticated")] * 3


async def test_limits_are_audited_and_what_ended_is_not_under_way() -> None:
    audit = RememberedAudit()
    let_in = access(audit, in_flight=1, burst=3, calls_per_second=0.001)
    async with let_in.admit(ANN, HERE):
        with pytest.raises(TooManyInFlight):
            async with let_in.admit(ANN, HERE):
                pass
    with pytest.raises(JobUnknown):
        async with let_in.admit(ANN, HERE):
            raise JobUnknown("x")
    async with let_in.admit(ANN, HERE):
        pass
    with pytest.raises(RateLimited):
        async with let_in.admit(ANN, HERE):
            pass
    assert audit.outcomes == ["too_many_in_flight", "ok", "job_unknown", "ok", "rate_limited"]


async def test_a_credential_that_is_revoked_meanwhile_gets_no_answer() -> None:
    audit, authenticator = RememberedAudit(), OneCredential()
    let_in = access(audit, authenticator)
    principal = await let_in.authenticate("good", HERE)
    with pytest.raises(CredentialInvalid):
        async with let_in.admit(principal, HERE):
            authenticator.revoked.set()
    with pytest.raises(CredentialInvalid):
        async with let_in.admit(principal, HERE):
            raise AssertionError("it was let in")
    assert audit.outcomes == ["unauthenticated"] * 2
    assert [told.principal for told in audit.told] == [ANN] * 2


async def test_a_stream_is_audited_when_it_begins_and_counted_until_it_ends() -> None:
    audit, authenticator = RememberedAudit(), OneCredential()
    let_in = access(audit, authenticator, streams=1)
    async with let_in.admit(ANN, HERE, stream=True) as admission:
        assert audit.outcomes == []
        admission.called("watch_jobs")
        admission.began()
        assert [(told.action, told.outcome) for told in audit.told] == [("watch_jobs", "ok")]
        with pytest.raises(TooManyInFlight):
            async with let_in.admit(ANN, HERE, stream=True):
                pass
        closing = asyncio.create_task(let_in.until_invalid(ANN))
        await asyncio.sleep(0)
        assert not closing.done()
        authenticator.revoked.set()
        async with asyncio.timeout(20):
            await closing
    assert audit.outcomes == ["ok", "too_many_in_flight"]


@pytest.mark.parametrize("address", ["192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1", "testclient"])
async def test_where_nobody_is_asked_calls_from_elsewhere_are_refused(address: str) -> None:
    audit = RememberedAudit()
    let_in = access(audit, Anyone())
    with pytest.raises(AccessDenied, match="HEADRACE_GATEWAY_AUTHENTICATION"):
        await let_in.authenticate(None, Arrival("http", address))
    assert audit.outcomes == ["forbidden"]
    for here in ("127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", None):
        assert await let_in.authenticate(None, Arrival("http", here)) is LOCAL


async def test_the_gateway_audits_tools_by_what_they_came_to() -> None:
    audit = RememberedAudit()
    gateway = Gateway(load_settings(), InMemoryJobs(), audit=audit)
    looked = {"action": "get_job", "jobId": "job-of-default"}
    for name, arguments, principal in [
        ("scheduler", {"kind": "digest", "args": {"to": ["x"]}}, LOCAL),
        ("worker_manager", looked, LOCAL),
        ("worker_manager", {"action": "get_job", "jobId": "secret of somebody"}, LOCAL),
        ("worker_manager", looked, a_principal(scopes=frozenset())),
        ("scheduler", {"kind": 5}, LOCAL),
        ("rm -rf", {"x": 1}, LOCAL),
    ]:
        async with gateway.admit(principal, HERE, gateway.tool_name(name)) as admission:
            await gateway.call_tool(ToolCall(name=name, arguments=arguments), admission)
    assert [(told.tool, told.action, told.outcome, told.job_id) for told in audit.told] == [
        ("scheduler", "enqueue", "ok", "job-1"),
        ("worker_manager", "get_job", "ok", "job-of-default"),
        ("worker_manager", "get_job", "job_unknown", None),
        ("worker_manager", "get_job", "forbidden", None),
        ("scheduler", None, "arguments_invalid", None),
        (None, None, "tool_unknown", None),
    ]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:DB8::1", "2001:db8::1"),
        (None, None),
        ("hr_0123 or any text", "unreadable"),
        ("", "unreadable"),
    ],
)
def test_an_address_is_audited_and_no_other_text_of_a_header(given: str | None, kept: str | None) -> None:
    entries: list[AuditEntry] = []

    class Trail:
        write = entries.append

    TrailAudit(cast("AuditTrail", Trail)).write(Audited(1, Arrival("http", given)))
    assert [entry.address for entry in entries] == [kept]


async def test_who_comes_by_a_way_of_their_own_has_no_credential_that_ends() -> None:
    authenticator = OneCredential()
    authenticator.revoked.set()
    ending = asyncio.create_task(access(RememberedAudit(), authenticator).until_invalid(a_principal(vouched=True)))
    assert not (await asyncio.wait([ending], timeout=0.05))[0]
    ending.cancel()
