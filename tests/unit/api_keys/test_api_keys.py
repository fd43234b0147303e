"""API keys in the log: made, found, revoked, expired; and that the log holds nothing by which one could come in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headrace import ApiKeyInvalid, ApiKeys, ApiKeyText, ApiKeyUnknown, parse_key
from headrace.api_keys import digest_of, new_key
from headrace.codec import encode
from headrace.core.topics import Topics
from headrace.models import ApiKey
from headrace.ports import NewRecord, TopicPartition
from headrace.settings import load_settings
from headrace.testing import InMemoryCluster, InMemoryLog
from headrace_gateway.access import CredentialInvalid
from headrace_gateway.access.keys import KeyAuthenticator
from support.access import Clock
from support.log import PATIENCE_SECONDS, eventually

SETTINGS = load_settings()
TARGET = TopicPartition(Topics(SETTINGS.namespace).api_keys.name, 0)
FIELDS: dict[str, Any] = {"name": "ann's laptop", "subject": "ann", "scopes": ["jobs:read", "jobs:write"], "tenant": "acme"}


@asynccontextmanager
async def reading(cluster: InMemoryCluster, clock: Clock | None = None) -> AsyncIterator[ApiKeys]:
    """One process that reads the keys."""
    log = InMemoryLog(cluster)
    made = ApiKeys(SETTINGS, log=log) if clock is None else ApiKeys(SETTINGS, log=log, now=lambda: int(clock() * 1000))
    async with made as keys:
        yield keys


def test_a_key_says_its_id_and_shows_its_secret_to_nobody_by_accident() -> None:
    key = new_key(lambda count: bytes(range(count)))
    assert key.text == "hr_0001020304050607_000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
    assert parse_key(key.text) == key
    secret = key.text.rpartition("_")[2]
    assert secret not in f"{key!r} {[key]}"
    assert len(digest_of(key)) == 64 and secret not in digest_of(key)
    assert digest_of(ApiKeyText(key.id, key.text[:-1] + "0")) != digest_of(key)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hr_",
        "hr_0123456789abcdef_",
        f"xx_0123456789abcdef_{64 * '0'}",
        f"hr_0123456789ABCDEF_{64 * '0'}",
        f"hr_0123456789abcdef_{65 * '0'}",
        f"hr_0123456789abcdef_{64 * '0'}\n",
        f"hr_0123456789abcdef_{64 * '٣'}",
    ],
)
def test_what_is_no_key_is_not_repeated(text: str) -> None:
    with pytest.raises(ApiKeyInvalid) as refused:
        parse_key(text)
    assert len(text) < 4 or text not in str(refused.value)


async def test_a_key_that_one_process_makes_counts_in_another_until_it_is_revoked() -> None:
    cluster = InMemoryCluster()
    async with reading(cluster) as here, reading(cluster) as there:
        made, key = await here.create(**FIELDS)
        await eventually(lambda: there.find(key) == made, "it was read")
        assert there.is_valid(made.id)
        other = ApiKeyText(key.id, f"hr_{key.id}_{64 * '0'}")
        assert there.find(other) is None, "the id alone is no key"
        revoked = await here.revoke(made.id)
        await eventually(lambda: not there.is_valid(made.id), "it was read")
        assert revoked.revoked_at is not None
        assert await there.revoke(made.id) == revoked, "to revoke it twice changes nothing"
    async with reading(cluster) as later:
        assert not later.is_valid(made.id) and later.keys[made.id] == revoked
        with pytest.raises(ApiKeyUnknown):
            await later.revoke("0123456789abcdef")


async def test_the_log_holds_no_key() -> None:
    cluster = InMemoryCluster()
    async with reading(cluster) as keys:
        _, key = await keys.create(**FIELDS)
        await keys.revoke(key.id)
    records = cluster.records(TARGET)
    assert [record.key for record in records] == [key.id.encode()] * 2
    secret = key.text.rpartition("_")[2].encode()
    assert all(secret not in (record.value or b"") + repr(record.headers).encode() for record in records)


async def test_a_key_expires_by_the_clock() -> None:
    cluster, clock = InMemoryCluster(), Clock(datetime(2026, 1, 31, tzinfo=UTC).timestamp())
    async with reading(cluster, clock) as keys:
        made, _ = await keys.create(**FIELDS, expires_at=datetime(2026, 1, 31, tzinfo=UTC) + timedelta(seconds=10))
        clock.at += 9.9
        assert keys.is_valid(made.id)
        clock.at += 0.1
        assert not keys.is_valid(made.id)


async def test_a_key_that_its_owner_has_is_entered_once() -> None:
    cluster = InMemoryCluster()
    given = new_key(lambda count: b"\1" * count)
    async with reading(cluster) as keys:
        first, _ = await keys.create(**FIELDS, key=given)
        again, _ = await keys.create(**{**FIELDS, "name": "another"}, key=given)
        assert again == first and len(cluster.records(TARGET)) == 1
        with pytest.raises(ApiKeyInvalid, match="another API key"):
            await keys.create(**FIELDS, key=ApiKeyText(given.id, f"hr_{given.id}_{64 * '2'}"))
        await keys.revoke(given.id)
        with pytest.raises(ApiKeyInvalid, match="was revoked"):
            await keys.create(**FIELDS, key=given)
        assert not keys.is_valid(given.id)


async def test_a_damaged_record_shuts_its_key_out_and_no_other() -> None:
    cluster = InMemoryCluster()
    async with reading(cluster) as keys:
        (_, damaged), (_, whole) = await keys.create(**FIELDS), await keys.create(**FIELDS)
        cluster.append(TARGET, NewRecord(damaged.id.encode(), b'{"revokedAt": tru'), NewRecord(b"\xff", b"{}"))
        await eventually(lambda: not keys.is_valid(damaged.id), "it was read")
        assert keys.is_valid(whole.id)
        assert keys.undecodable.total == 2


async def test_a_record_under_the_id_of_another_is_passed_over() -> None:
    cluster = InMemoryCluster()
    async with reading(cluster) as keys:
        made, key = await keys.create(**FIELDS)
        cluster.append(TARGET, NewRecord(b"0123456789abcdef", encode(made)))
        await eventually(lambda: keys.undecodable.total == 1, "it was read")
        assert keys.find(key) == made


async def test_who_came_in_with_a_key_is_told_of_its_revocation() -> None:
    cluster = InMemoryCluster()
    async with reading(cluster) as operator, reading(cluster) as keys:
        authenticator = KeyAuthenticator(keys)
        (_, first), (_, second) = await operator.create(**FIELDS), await operator.create(**FIELDS)
        await eventually(lambda: len(keys.keys) == 2, "it was read")
        principal, other = [await authenticator.authenticate(key.text) for key in (first, second)]
        assert (principal.tenant, principal.subject, principal.credential) == ("acme", "ann", f"key:{first.id}")
        assert sorted(principal.scopes) == ["jobs:read", "jobs:write"]
        closing = [asyncio.create_task(authenticator.until_invalid(each)) for each in (principal, principal, other)]
        await asyncio.sleep(0.01)
        await operator.revoke(first.id)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.gather(*closing[:2])
        assert not authenticator.is_valid(principal)
        assert authenticator.is_valid(other) and not closing[2].done()
        closing[2].cancel()
        for credential in (first.text, "", "hr_", None):
            with pytest.raises(CredentialInvalid):
                await authenticator.authenticate(credential)


async def test_who_came_in_with_a_key_is_told_of_its_expiry() -> None:
    clock = Clock(datetime(2026, 1, 31, tzinfo=UTC).timestamp())
    async with reading(InMemoryCluster(), clock) as keys:
        authenticator = KeyAuthenticator(keys, now=clock)
        _, key = await keys.create(**FIELDS, expires_at=datetime(2026, 1, 31, tzinfo=UTC) + timedelta(seconds=0.1))
        principal = await authenticator.authenticate(key.text)
        told = asyncio.create_task(authenticator.until_invalid(principal))
        # It waits for as long as the key has left, and nobody wakes it: the clock goes on meanwhile.
        await asyncio.sleep(0)
        assert not told.done()
        clock.at += 0.1
        async with asyncio.timeout(PATIENCE_SECONDS):
            await told
        assert not authenticator.is_valid(principal)


async def test_unknown_scopes_are_no_rights() -> None:
    cluster = InMemoryCluster()
    async with reading(cluster) as keys:
        made, key = await keys.create(**{**FIELDS, "scopes": ["jobs:read", "everything", "admin"]})
        assert isinstance(made, ApiKey)
        principal = await KeyAuthenticator(keys).authenticate(key.text)
        assert sorted(principal.scopes) == ["jobs:read"]
