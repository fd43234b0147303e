"""What aiokafka does to a member of a group that is not on its guard, each brought about on a real broker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import pytest
from aiokafka.client import ConnectionGroup
from aiokafka.errors import RequestTimedOutError
from aiokafka.protocol.group import LeaveGroupRequest

from headrace.kafka import KafkaLog
from headrace.kafka.group import KafkaGroupConsumer
from headrace.ports import Committed, TopicPartition
from headrace.settings import EngineSettings, Settings
from support.log import Member, Outcomes, eventually, members, numbered, started

# The first heartbeat comes when the test is over: until then nobody tells a member anything by it.
SILENT_SECONDS = 40.0


def kafka_consumer(member: Member) -> KafkaGroupConsumer:
    assert isinstance(member.consumer, KafkaGroupConsumer)
    return member.consumer


async def write(log: KafkaLog, topic: str, *numbers: int) -> None:
    """The same numbers to each of the two partitions."""
    outcomes = Outcomes()
    async with started(log.writer()) as writer:
        for partition in range(2):
            writer.submit(TopicPartition(topic, partition), numbered(numbers), outcomes.expect(partition))
        await outcomes.offsets()


async def refused() -> None:
    """The coordinator answers that the commit may be tried again."""
    raise RequestTimedOutError


async def unanswered() -> None:
    """The coordinator says nothing, and the connection stays open."""
    await asyncio.Event().wait()


@pytest.mark.parametrize("coordinator_does", [refused, unanswered])
async def test_a_commit_that_goes_on_across_a_rebalance_does_not_undo_the_new_owner_s(
    log: KafkaLog, topic: str, coordinator_does: Callable[[], Awaitable[None]]
) -> None:
    """aiokafka repeats it for as long as it may be repeated, with whatever generation it has by then."""
    await write(log, topic, *range(10))
    first, second = Member(log, topic, f"{topic}.group"), Member(log, topic, f"{topic}.group")
    async with members(first):
        await first.joined(2)
        coordinator = kafka_consumer(first)._consumer._coordinator
        send, under_way = coordinator._do_commit_offsets, asyncio.Event()
        over_at_revocation: list[bool] = []

        async def no_success(*arguments: Any) -> None:
            under_way.set()
            await coordinator_does()

        async def see_whether_it_is_over(_: Collection[TopicPartition]) -> None:
            await asyncio.wait({committing}, timeout=30)
            over_at_revocation.append(committing.done())

        coordinator._do_commit_offsets = no_success
        first.when_revoked(see_whether_it_is_over)
        partitions = first.held
        committing = asyncio.create_task(first.consumer.commit(dict.fromkeys(partitions, Committed(3)), timeout=600))
        async with asyncio.timeout(20):
            await under_way.wait()
        async with members(second):
            await second.joined(1)
            await first.joined(1)
            assert over_at_revocation == [True], "it must be over before the partitions are given up"
            [lost] = second.held
            assert await second.consumer.commit({lost: Committed(7)})
            coordinator._do_commit_offsets = send  # the coordinator answers again
            async with asyncio.timeout(20):
                assert not await committing
            assert await log.committed_offsets(f"{topic}.group") == {lost: 7}


async def test_an_evicted_member_that_is_not_told_reads_on_and_learns_of_it_by_its_commit(
    settings: Settings, log: KafkaLog, topic: str
) -> None:
    silent = settings.model_copy(update={"engine": EngineSettings(heartbeat_interval_seconds=SILENT_SECONDS)})
    others = KafkaLog(silent)
    evicted, other = Member(others, topic, f"{topic}.group"), Member(log, topic, f"{topic}.group")
    async with members(evicted):
        await evicted.joined(2)
        await _leave_for(evicted, f"{topic}.group")
        async with members(other):
            await other.joined(2)
            await write(log, topic, 0)
            await evicted.received(2)
            await other.received(2)
            assert evicted.history == [("assigned", evicted.held)], "it was told nothing"
            assert not await evicted.consumer.commit(dict.fromkeys(evicted.held, Committed(1)))
            assert await log.committed_offsets(f"{topic}.group") == {}
            # It has learned of it, and comes back for its share.
            await eventually(lambda: len(evicted.held) == len(other.held) == 1, "a share for each")
            assert [event for event, _ in evicted.history] == ["assigned", "revoked", "assigned"]
            assert await evicted.consumer.commit(dict.fromkeys(evicted.held, Committed(1)))
    await others.close()


async def test_an_evicted_member_that_has_nothing_hears_of_it_by_its_heartbeat(log: KafkaLog, topic: str) -> None:
    """It has nothing to commit, by which it would hear of it otherwise."""
    group = f"{topic}.group"
    joining = [Member(log, topic, group) for _ in range(3)]
    async with members(*joining):

        def dealt() -> bool:
            shares = [member.history[-1] for member in joining if member.history]
            return sorted((event, len(share)) for event, share in shares) == [("assigned", 0), ("assigned", 1), ("assigned", 1)]

        await eventually(dealt, "a share for each of two, and nothing for one")
        [spare] = [member for member in joining if not member.held]
        before = kafka_consumer(spare)._consumer._coordinator.member_id
        await _leave_for(spare, group)
        await eventually(lambda: kafka_consumer(spare)._consumer._coordinator.member_id not in {before, ""}, "its return")
        await eventually(lambda: sum(len(member.held) for member in joining) == 2, "a share for each of two again")


async def _leave_for(member: Member, group: str) -> None:
    """Takes a member out of its group from outside, as its session's end does; its own client sends nothing of its own."""
    consumer = kafka_consumer(member)._consumer
    coordinator = consumer._coordinator
    request = LeaveGroupRequest(group, coordinator.member_id)
    answer = await consumer._client.send(coordinator.coordinator_id, request, group=ConnectionGroup.DEFAULT)
    assert answer.error_code == 0


async def test_a_fetch_that_was_given_up_does_not_keep_a_dead_engine_in_its_group(
    log: KafkaLog, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `getmany` that is cancelled leaves aiokafka thinking that somebody polls, for good."""
    monkeypatch.setattr("headrace.kafka.group._MAX_POLL_INTERVAL_SECONDS", 3)
    dead, other = Member(log, topic, f"{topic}.group"), Member(log, topic, f"{topic}.group")
    async with members(dead):
        await dead.joined(2)
        await dead.pause_polling()
        for _ in range(3):
            with contextlib.suppress(TimeoutError):  # the first may get the end of a poll from before
                async with asyncio.timeout(0.05):
                    await dead.consumer.fetch(timeout=1.0, maximum=1)
        async with members(other):
            # Nobody polls for the first one any more.
            await other.joined(2)
