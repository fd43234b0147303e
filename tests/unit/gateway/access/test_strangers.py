"""Callers whom nobody knows cannot fill the audit, and what is left out of it is counted in it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from headrace import AuditTrail, load_settings
from headrace.codec import decode
from headrace.core.topics import AUDIT_PARTITIONS, Topics
from headrace.models import AuditRecord
from headrace.ports import TopicPartition
from headrace.testing import InMemoryCluster, InMemoryLog
from headrace_gateway import Gateway
from headrace_gateway.access import Access, Allowance, CredentialInvalid, Limits, Principal, Strangers, TrailAudit
from support.access import HERE, RememberedAudit, a_principal
from support.jobs import InMemoryJobs

ANN = a_principal("ann")
MANY = 1_000


class Clock:
    """Seconds that stand until they are set."""

    now = 50.0

    def __call__(self) -> float:
        return self.now


class Nobody:
    """Knows the credential `good` alone."""

    open_to_anyone = False
    trouble = None

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def authenticate(self, credential: str | None) -> Principal:
        if credential != "good":
            raise CredentialInvalid("It does not count.")
        return ANN

    def is_valid(self, principal: Principal) -> bool:
        return True

    async def until_invalid(self, principal: Principal) -> None:
        raise AssertionError("nobody waits")


async def refuse(access: Access, times: int) -> None:
    for _ in range(times):
        with pytest.raises(CredentialInvalid):
            await access.authenticate("wrong", HERE)


async def test_so_many_at_once_and_so_many_in_the_long_run() -> None:
    clock, audit = Clock(), RememberedAudit()
    access = Access(Nobody(), Limits(Allowance()), audit, strangers=Strangers(2.0, 5, clock))
    await refuse(access, 8)
    assert [each.left_out for each in audit.told] == [0] * 5
    clock.now += 0.5
    await refuse(access, 4)
    clock.now += 0.4
    await refuse(access, 1)
    assert [each.left_out for each in audit.told] == [0] * 5 + [3]
    clock.now += 0.1
    await refuse(access, 1)
    assert [each.left_out for each in audit.told[5:]] == [3, 4]
    clock.now += 3_600.0
    await refuse(access, 9)
    assert [each.left_out for each in audit.told[7:]] == [0] * 5, "a rest leaves room for no more than after the start"
    assert access.strangers.left_out == 4


async def test_those_who_are_known_are_always_audited() -> None:
    audit = RememberedAudit()
    access = Access(Nobody(), Limits(Allowance()), audit, strangers=Strangers(0.001, 1, Clock()))
    await refuse(access, 3)
    for _ in range(3):
        async with access.admit(await access.authenticate("good", HERE), HERE):
            pass
    assert audit.outcomes == ["unauthenticated", "ok", "ok", "ok"]


async def test_what_is_in_the_log_and_what_it_says_is_left_out_are_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings(bootstrap_servers="memory:9092", data_directory=tmp_path)
    cluster = InMemoryCluster()
    trail = TrailAudit(AuditTrail(settings, log=InMemoryLog(cluster)))
    gateway = Gateway(settings, InMemoryJobs(), authenticator=Nobody(), audit=trail)
    clock = Clock()
    gateway.access.strangers = Strangers(clock=clock)
    async with gateway:
        await refuse(gateway.access, MANY // 2)
        clock.now += 0.1
        await refuse(gateway.access, MANY // 2)
        unsaid = gateway.access.strangers.left_out
    topic = Topics(settings.namespace).audit(1).name
    partitions = [TopicPartition(topic, number) for number in range(AUDIT_PARTITIONS)]
    found = [decode(AuditRecord, record.value) for partition in partitions for record in cluster.records(partition)]
    # So many at once, and the one for which there was time again.
    assert (len(found), unsaid) == (201, MANY // 2 - 1)
    assert len(found) + sum(record.left_out or 0 for record in found) + unsaid == MANY
    [said] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert said.getMessage().startswith(f"{unsaid} refusals of callers whom nobody knows were not audited")
