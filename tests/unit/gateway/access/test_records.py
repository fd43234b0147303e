"""A credential in a record is good for that record's call alone, and for nothing else."""

from __future__ import annotations

import pytest

from headrace import load_settings
from headrace_gateway import Gateway
from headrace_gateway.access import Arrival, CredentialInvalid, Principal
from support.access import HERE, RememberedAudit, a_principal
from support.jobs import InMemoryJobs
from support.served import FOR_CALL, Tokens


def door(audit: RememberedAudit | None = None) -> Gateway:
    return Gateway(load_settings(), InMemoryJobs(), authenticator=Tokens({"token": a_principal()}), audit=audit)


async def test_a_token_for_a_call_counts_in_its_record() -> None:
    principal = await door().authenticate(f"token{FOR_CALL}one", Arrival("kafka", call_id="one"))
    assert (principal.subject, principal.call_id) == ("ann", "one")


@pytest.mark.parametrize(
    ("credential", "arrival"),
    [
        (f"token{FOR_CALL}one", Arrival("kafka", call_id="two")),
        (f"token{FOR_CALL}one", Arrival("kafka")),
        (f"token{FOR_CALL}one", HERE),
        (f"token{FOR_CALL}one", Arrival("mcp")),
        (f"token{FOR_CALL}one", Arrival("stdio")),
        ("token", Arrival("kafka", call_id="one")),
        ("hr_0123456789abcdef_x", Arrival("kafka", call_id="one")),
        (None, Arrival("kafka", call_id="one")),
    ],
)
async def test_nothing_else_counts(credential: str | None, arrival: Arrival) -> None:
    audit = RememberedAudit()
    with pytest.raises(CredentialInvalid):
        await door(audit).authenticate(credential, arrival)
    assert audit.outcomes == ["unauthenticated"]


async def test_a_token_for_one_record_counts_for_no_other_of_its_call() -> None:
    made_for = a_principal(call_digest="ab" * 32)
    gateway = Gateway(load_settings(), InMemoryJobs(), authenticator=Tokens({"token": made_for}))
    token = f"token{FOR_CALL}one"
    assert (await gateway.authenticate(token, Arrival("kafka", call_id="one", call_digest="ab" * 32))).subject == "ann"
    for arrival in (Arrival("kafka", call_id="one", call_digest="cd" * 32), Arrival("kafka", call_id="one"), HERE):
        with pytest.raises(CredentialInvalid):
            await gateway.authenticate(token, arrival)
    with pytest.raises(CredentialInvalid):
        await gateway.authenticate("token", HERE)


async def test_an_api_key_in_a_record_is_refused_though_it_would_count() -> None:
    key = "hr_0123456789abcdef_x"
    gateway = Gateway(load_settings(), InMemoryJobs(), authenticator=Tokens({key: a_principal(call_id=None)}))
    assert (await gateway.authenticate(key, HERE)).subject == "ann"
    with pytest.raises(CredentialInvalid, match="API keys do not count in records"):
        await gateway.authenticate(key, Arrival("kafka", call_id="one"))


async def test_who_comes_by_a_topic_of_their_own_has_no_credential_that_could_end() -> None:
    gateway = door()
    for vouched in (True, False):
        principal = Principal(subject="kafka", tenant="acme", vouched=vouched)
        call = gateway.admit(principal, Arrival("kafka", call_id="one"))
        if vouched:
            async with call:
                pass
        else:
            with pytest.raises(CredentialInvalid):
                await call.__aenter__()
