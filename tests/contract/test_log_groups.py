"""What a log promises of consumer groups."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

import pytest

from headrace.errors import TopicMissing
from headrace.ports import Committed, GroupListener, Log, Record, TopicPartition
from support.log import Member, Outcomes, eventually, members, numbered, started

MakeTopic = Callable[..., Awaitable[str]]


async def write(log: Log, topic: str, numbers: Sequence[int], *, partition: int = 0) -> None:
    outcomes = Outcomes()
    async with started(log.writer()) as writer:
        writer.submit(TopicPartition(topic, partition), numbered(numbers), outcomes.expect())
        await outcomes.offsets()


def all_of(topic: str, partitions: int) -> frozenset[TopicPartition]:
    return frozenset(TopicPartition(topic, number) for number in range(partitions))


async def test_a_member_alone_holds_everything_from_the_start_of_the_log(log: Log, make_topic: MakeTopic, namespace: str) -> None:
    topic = await make_topic(partitions=3)
    for partition in range(3):
        await write(log, topic, [partition], partition=partition)
    member = Member(log, topic, f"{namespace}.group")
    async with members(member):
        await member.joined(3)
        await eventually(lambda: sorted(member.numbers) == [0, 1, 2], "all records")
    assert member.history == [("assigned", all_of(topic, 3))]


async def test_new_partitions_are_paused(log: Log, make_topic: MakeTopic, namespace: str) -> None:
    topic = await make_topic(partitions=2)
    for partition in range(2):
        await write(log, topic, [partition], partition=partition)
    member = Member(log, topic, f"{namespace}.group", resumes=False)
    async with members(member):
        await member.joined(2)
        member.consumer.resume([TopicPartition(topic, 1)])
        await eventually(lambda: member.numbers == [1], "the record of the partition that was resumed")
        member.consumer.resume([TopicPartition(topic, 0)])
        await eventually(lambda: member.numbers == [1, 0], "the other record")


async def test_a_paused_partition_delivers_nothing_and_loses_nothing(log: Log, make_topic: MakeTopic, namespace: str) -> None:
    topic = await make_topic(partitions=2)
    member = Member(log, topic, f"{namespace}.group")
    async with members(member):
        await member.joined(2)
        await write(log, topic, [0])
        await eventually(lambda: member.numbers == [0], "the first record")
        member.consumer.pause([TopicPartition(topic, 0)])
        await write(log, topic, [1, 2], partition=0)
        await write(log, topic, [9], partition=1)
        await eventually(lambda: 9 in member.numbers, "the record of the other partition")
        assert member.numbers == [0, 9]
        member.consumer.resume([TopicPartition(topic, 0)])
        await eventually(lambda: member.numbers == [0, 9, 1, 2], "what was written during the pause")


async def test_only_chosen_partitions_are_fetched(log: Log, make_topic: MakeTopic, namespace: str) -> None:
    topic = await make_topic(partitions=2)
    for partition in range(2):
        await write(log, topic, [partition], partition=partition)
    assigned: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def revoked(_: Collection[TopicPartition]) -> None:
        return None

    consumer = log.group_consumer(topic, f"{namespace}.group", GroupListener(lambda _: assigned.set_result(None), revoked))
    await consumer.start()
    try:
        async with asyncio.timeout(20):
            while not assigned.done():
                await consumer.fetch(timeout=0.1, maximum=10)
        consumer.resume(all_of(topic, 2))
        for chosen in (1, 0):
            partitions = [TopicPartition(topic, chosen)]
            fetched: Mapping[TopicPartition, Sequence[Record]] = {}
            async with asyncio.timeout(20):
                while not fetched:
                    fetched = await consumer.fetch(timeout=0.2, maximum=10, partitions=partitions)
            assert list(fetched) == partitions
        assert await consumer.fetch(timeout=0, maximum=10, partitions=[]) == {}
    finally:
        await consumer.stop(timeout=5)


async def test_a_member_goes_on_where_it_seeks(log: Log, make_topic: MakeTopic, namespace: str) -> None:
    topic = await make_topic()
    await write(log, topic, range(10))
    member = Member(log, topic, f"{namespace}.group", resumes=False)
    async with members(member):
        await member.joined(1)
        member.consumer.seek(TopicPartition(topic, 0), 6)
        member.consumer.resume([TopicPartition(topic, 0)])
        await eventually(lambda: member.numbers == [6, 7, 8, 9], "the records from there on")


async def test_a_group_goes_on_where_it_committed(log: Log, make_topic: MakeTopic, namespace: str) -> None:
    topic, group = await make_topic(partitions=2), f"{namespace}.group"
    await write(log, topic, range(10), partition=0)
    target = TopicPartition(topic, 0)
    first = Member(log, topic, group)
    async with members(first):
        await first.joined(2)
        assert await first.consumer.committed(all_of(topic, 2)) == {target: None, TopicPartition(topic, 1): None}
        assert await first.consumer.commit({target: Committed(4, "four")})
        assert await first.consumer.committed(all_of(topic, 2)) == {target: Committed(4, "four"), TopicPartition(topic, 1): None}
    assert await log.committed_offsets(group) == {target: 4}
    second = Member(log, topic, group)
    async with members(second):
        await eventually(lambda: second.numbers == list(range(4, 10)), "the records that were not committed")


async def test_a_group_that_never_was_has_committed_nothing(log: Log, namespace: str) -> None:
    assert await log.committed_offsets(f"{namespace}.nobody") == {}


async def test_two_members_share_and_keep_what_they_can(log: Log, make_topic: MakeTopic, namespace: str) -> None:
    topic, group = await make_topic(partitions=4), f"{namespace}.group"
    first, second = Member(log, topic, group), Member(log, topic, group)
    async with members(first):
        await first.joined(4)
        async with members(second):
            await second.joined(2)
            await first.joined(2)
            assert first.held | second.held == all_of(topic, 4)
            kept = first.held
        # Revoked once, of everything, and given back a part.
        assert first.history[:3] == [("assigned", all_of(topic, 4)), ("revoked", all_of(topic, 4)), ("assigned", kept)]
        await first.joined(4)


async def test_each_member_of_a_process_keeps_its_own(log: Log, make_topic: MakeTopic, namespace: str) -> None:
    topic, group = await make_topic(partitions=6), f"{namespace}.group"
    first, second, third = (Member(log, topic, group) for _ in range(3))
    async with members(first, second):
        await second.joined(3)
        await first.joined(3)
        before = first.held, second.held
        async with members(third):
            await third.joined(2)
            await first.joined(2)
            await second.joined(2)
            assert first.held < before[0]
            assert second.held < before[1]


async def test_members_of_different_groups_do_not_disturb_each_other(log: Log, make_topic: MakeTopic, namespace: str) -> None:
    one, other = await make_topic("one", partitions=3), await make_topic("other", partitions=3)
    here, there = Member(log, one, f"{namespace}.one"), Member(log, other, f"{namespace}.other")
    third = Member(log, one, f"{namespace}.one")
    async with members(here, there):
        await here.joined(3)
        await there.joined(3)
        async with members(third):
            await eventually(lambda: len(here.held | third.held) == 3 and bool(third.held), "a share for each")
        assert there.history == [("assigned", all_of(other, 3))]


async def test_what_is_revoked_can_still_be_committed(log: Log, make_topic: MakeTopic, namespace: str) -> None:
    topic, group = await make_topic(partitions=2), f"{namespace}.group"
    for partition in range(2):
        await write(log, topic, range(5), partition=partition)
    first, second = Member(log, topic, group), Member(log, topic, group)
    committed: list[bool] = []

    async def commit(partitions: Collection[TopicPartition]) -> None:
        committed.append(await first.consumer.commit(dict.fromkeys(partitions, Committed(3))))

    first.when_revoked(commit)
    async with members(first):
        await first.joined(2)
        async with members(second):
            await second.joined(1)
            assert committed == [True]
            await eventually(lambda: second.numbers == [3, 4], "only what was not committed")


async def test_what_is_not_held_is_not_committed(log: Log, make_topic: MakeTopic, namespace: str) -> None:
    topic, group = await make_topic(partitions=2), f"{namespace}.group"
    for partition in range(2):
        await write(log, topic, range(5), partition=partition)
    first, second = Member(log, topic, group), Member(log, topic, group)
    async with members(first, second):
        await second.joined(1)
        await first.joined(1)
        [mine], [other] = first.held, second.held
        assert not await first.consumer.commit({mine: Committed(2), other: Committed(4)})
        assert await log.committed_offsets(group) == {mine: 2}
        # Nothing to hold back, seek or resume either, and no error.
        first.consumer.pause([other])
        first.consumer.resume([other])
        first.consumer.seek(other, 0)
        assert await first.consumer.commit({})


async def test_fetching_returns_in_time_while_the_group_changes(log: Log, make_topic: MakeTopic, namespace: str) -> None:
    topic, group = await make_topic(partitions=2), f"{namespace}.group"
    first, second = Member(log, topic, group), Member(log, topic, group)
    revoking, go_on = asyncio.Event(), asyncio.Event()

    async def hold_up(_: Collection[TopicPartition]) -> None:
        revoking.set()
        await go_on.wait()

    first.when_revoked(hold_up)
    async with members(first):
        await first.joined(2)
        async with members(second):
            async with asyncio.timeout(20):
                await revoking.wait()
            for _ in range(3):
                async with asyncio.timeout(20):
                    assert await second.consumer.fetch(timeout=0.1, maximum=10) == {}
            assert second.history == []
            go_on.set()
            await second.joined(1)


async def test_what_was_fetched_before_a_revocation_is_not_returned_after_it(
    log: Log, make_topic: MakeTopic, namespace: str
) -> None:
    topic, group = await make_topic(partitions=2), f"{namespace}.group"
    first, second = Member(log, topic, group), Member(log, topic, group)
    async with members(first):
        await first.joined(2)
        for partition in range(2):
            await write(log, topic, range(partition * 100, partition * 100 + 50), partition=partition)
        await eventually(lambda: len(first.records) == 100, "all records")
        async with members(second):
            await second.joined(1)
            await first.joined(1)
            # Nothing was committed: the new owner reads its partition from the start, and the old one reads its own again.
            await eventually(lambda: len(second.records) == 50 and len(first.records) == 150, "each its own partition")
            assert {record.partition for record in second.records} == {held.partition for held in second.held}
            assert {record.partition for record in first.records[100:]} == {held.partition for held in first.held}


async def test_a_stop_ends_a_fetch_and_what_comes_after_it_does_no_harm(log: Log, make_topic: MakeTopic, namespace: str) -> None:
    topic = await make_topic()
    member = Member(log, topic, f"{namespace}.group")
    async with members(member):
        await member.joined(1)
        await member.pause_polling()
        fetching = asyncio.create_task(member.consumer.fetch(timeout=60, maximum=10))
        await asyncio.sleep(0)
        await member.consumer.stop(timeout=5)
        async with asyncio.timeout(20):
            assert await fetching == {}
        member.consumer.pause(member.held)
        member.consumer.resume(member.held)
        member.consumer.seek(TopicPartition(topic, 0), 0)
        assert await member.consumer.fetch(timeout=0, maximum=10) == {}
        assert not await member.consumer.commit({TopicPartition(topic, 0): Committed(0)})
    assert await log.committed_offsets(f"{namespace}.group") == {}


async def test_a_topic_that_does_not_exist_is_not_made_by_joining(log: Log, namespace: str) -> None:
    member = Member(log, f"{namespace}.nowhere", f"{namespace}.group")
    with pytest.raises(TopicMissing, match=f"{namespace}.nowhere"):
        await member.start()
    await member.stop()
    assert f"{namespace}.nowhere" not in await log.topic_names()
