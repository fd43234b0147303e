"""What the cluster in memory has beyond the contract of a log: faults, compaction, and the same course of things in every run."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from headrace.core.topics import Topics
from headrace.errors import AppendTimeout, BrokerError, BrokerUnreachable
from headrace.ports import Acknowledged, AppendFailed, Committed, NewRecord, TopicPartition
from headrace.testing import InMemoryCluster, InMemoryLog
from support.log import Member, Outcomes, eventually, members, numbered, numbers_of, plain_topic, read, started
from support.memory_engines import passing
from support.virtual_time import in_virtual_time, run_in_virtual_time

THINGS = TopicPartition("things", 0)
GROUP = "group"


@pytest.fixture
def log() -> InMemoryLog:
    made = InMemoryLog()
    made.cluster.create_topics([plain_topic("things", 4)])
    return made


def stored(log: InMemoryLog) -> list[int]:
    return numbers_of(log.cluster.records(THINGS))


@in_virtual_time
async def test_what_is_refused_never_lands_and_takes_along_what_waits_behind_it(log: InMemoryLog) -> None:
    outcomes = Outcomes()
    async with started(log.writer()) as writer:
        held = log.hold_appends("things")
        log.refuse_appends("things", BrokerError("no"))
        writer.submit(THINGS, numbered([0]), outcomes.expect(0))
        await held.caught()
        writer.submit(THINGS, numbered([1]), outcomes.expect(1))
        held.release()
        failures = await outcomes.failures()
        assert [(str(failure.reason), failure.may_land) for failure in failures.values()] == [("no", False), ("no", False)]
        assert (await writer.append(THINGS, numbered([2])[0], timeout=10)).offset == 0
    assert stored(log) == [2]


@pytest.mark.parametrize("late", [False, True])
@in_virtual_time
async def test_what_lands_unheard_may_land(log: InMemoryLog, late: bool) -> None:
    outcomes = Outcomes()
    async with started(log.writer()) as writer:
        hold = log.cluster.land_late("things") if late else None
        if hold is None:
            log.cluster.lose_acknowledgements("things")
        writer.submit(THINGS, numbered([0]), outcomes.expect())
        assert (await outcomes.failures())[None].may_land
        await writer.append(THINGS, numbered([1])[0], timeout=10)
    assert stored(log) == ([1] if late else [0, 1])
    if hold is not None:
        hold.release()
        await eventually(lambda: stored(log) == [1, 0], "the late one")


@in_virtual_time
async def test_a_fault_of_one_process_is_not_that_of_another(log: InMemoryLog) -> None:
    other = InMemoryLog(log.cluster)
    async with started(log.writer()) as mine, started(other.writer()) as theirs:
        log.refuse_appends("things", times=None)
        with pytest.raises(BrokerError):
            await mine.append(THINGS, numbered([0])[0], timeout=10)
        assert (await theirs.append(THINGS, numbered([1])[0], timeout=10)).offset == 0
        log.end_faults()
        assert (await mine.append(THINGS, numbered([2])[0], timeout=10)).offset == 1


@in_virtual_time
async def test_a_fault_may_be_for_a_partition_or_for_some_records(log: InMemoryLog) -> None:
    async with started(log.writer()) as writer:
        log.refuse_appends("things", partition=1, matching=lambda record: record.value == b"7")
        for target, number in ((THINGS, 7), (TopicPartition("things", 1), 6)):
            await writer.append(target, numbered([number])[0], timeout=10)
        with pytest.raises(BrokerError):
            await writer.append(TopicPartition("things", 1), numbered([7])[0], timeout=10)


@in_virtual_time
async def test_an_append_that_lasts_too_long_may_land_and_one_that_was_not_sent_does_not(log: InMemoryLog) -> None:
    async with started(log.writer()) as writer:
        held = log.hold_appends("things")
        outcomes = Outcomes()
        writer.submit(THINGS, numbered([0]), outcomes.expect())
        await held.caught()
        with pytest.raises(AppendTimeout) as behind:
            await writer.append(THINGS, numbered([1])[0], timeout=10)
        assert not behind.value.may_land
        held.release()
        await outcomes.offsets()
        held = log.hold_appends("things")
        with pytest.raises(AppendTimeout) as under_way:
            await writer.append(THINGS, numbered([2])[0], timeout=10)
        assert under_way.value.may_land
        held.release()
        await eventually(lambda: stored(log) == [0, 2], "what was on its way")


@in_virtual_time
async def test_a_process_that_is_cut_off_hears_nothing_and_loses_nothing(log: InMemoryLog) -> None:
    outcomes = Outcomes()
    async with started(log.writer()) as writer, started(log.reader()) as reader:
        await reader.assign({THINGS: 0})
        log.cut_off()
        writer.submit(THINGS, numbered([0]), outcomes.expect())
        log.cluster.append(THINGS, *numbered([9]))
        assert await reader.fetch(timeout=60) == {}
        with pytest.raises(BrokerUnreachable):
            await reader.end_offsets([THINGS])
        assert outcomes.told == []
        log.reconnect()
        assert await outcomes.offsets() == {None: 1}
        assert numbers_of((await read(reader, 2))[THINGS]) == [9, 0]


@in_virtual_time
async def test_a_writer_that_broke_down_writes_nothing_any_more(log: InMemoryLog) -> None:
    outcomes = Outcomes()
    async with started(log.writer()) as writer:
        log.hold_appends("things")
        writer.submit(THINGS, numbered([0]), outcomes.expect(0))
        await passing(1)
        writer.submit(THINGS, numbered([1]), outcomes.expect(1))
        log.break_writers(BrokerError("broken"))
        writer.submit(THINGS, numbered([2]), outcomes.expect(2))
        failures = await outcomes.failures()
        assert [failures[number].may_land for number in range(3)] == [True, False, False]
        assert str(writer.failure) == "broken"


@in_virtual_time
async def test_compaction_leaves_the_newest_of_each_key_gaps_and_what_is_too_new(log: InMemoryLog) -> None:
    now = 1_000_000
    cluster = InMemoryCluster(now=lambda: now)
    state = replace(Topics("unit").job_state, name="state", partitions=1)
    cluster.create_topics([state])
    target = TopicPartition("state", 0)
    for key, value, age in ((b"a", b"1", 9), (b"b", b"1", 8), (b"a", b"2", 7), (b"b", None, 6), (b"a", b"3", 0)):
        cluster.append(target, NewRecord(key, value), timestamp=now - age * 3_600_000)
    cluster.compact("state")
    assert [record.offset for record in cluster.records(target)] == [2, 3, 4], "the last is within the compaction lag"
    cluster.compact("state", tombstones=True)
    assert [record.offset for record in cluster.records(target)] == [2, 4]
    cluster.delete_records(target, 4)
    async with started(InMemoryLog(cluster).reader()) as reader:
        await reader.assign({target: 0})
        assert await reader.positions() == {target: 4}
    with pytest.raises(ValueError, match="things is not compacted"):
        log.cluster.compact("things")


@in_virtual_time
async def test_a_member_that_was_evicted_reads_on_until_it_is_told(log: InMemoryLog) -> None:
    member, other = Member(log, "things", GROUP), Member(InMemoryLog(log.cluster), "things", GROUP)
    async with members(member):
        await member.joined(4)
        log.evict(GROUP)
        async with members(other):
            await other.joined(4)
            log.cluster.append(THINGS, *numbered([0]))
            await eventually(lambda: member.numbers == other.numbers == [0], "the record, for both")
            await passing(60)
            assert len(member.history) == 1
            assert not await member.consumer.commit({THINGS: Committed(1)})
            await eventually(lambda: len(member.held) == len(other.held) == 2, "a share for each")
            assert [event for event, _ in member.history] == ["assigned", "revoked", "assigned"]
            assert log.cluster.committed_offsets(GROUP) == {}


@in_virtual_time
async def test_a_member_that_was_given_nothing_joins_again_when_it_was_evicted(log: InMemoryLog) -> None:
    holders = [Member(InMemoryLog(log.cluster), "things", GROUP) for _ in range(4)]
    spare = Member(log, "things", GROUP)
    async with members(*holders):
        await eventually(lambda: all(len(holder.held) == 1 for holder in holders), "a share for each of them")
        async with members(spare):
            await eventually(lambda: spare.history == [("assigned", frozenset())], "nothing for one more")
            log.evict(GROUP)
            await eventually(lambda: len(log.cluster.members(GROUP)) == 5, "its return")


class Dealt:
    """A member of which nothing but its part counts."""

    topic = THINGS.topic
    session_timeout = 45.0

    def __init__(self) -> None:
        self.generation = -1

    def hear(self) -> None:
        """It joins again when the test says so."""

    def receive(self, generation: int, partitions: frozenset[TopicPartition]) -> None:
        self.generation = generation


@in_virtual_time
async def test_a_commit_of_a_former_generation_counts_for_nothing(log: InMemoryLog) -> None:
    group, one, other = log.cluster.group(GROUP), Dealt(), Dealt()
    group.join("one", one)
    assert group.commit("one", one.generation, {THINGS: Committed(3)})
    former = one.generation
    group.join("other", other)
    group.join("one", one)
    assert one.generation == other.generation == former + 1
    assert not group.commit("one", former, {THINGS: Committed(1)})
    assert group.committed == {THINGS: Committed(3)}
    assert group.commit("one", one.generation, {THINGS: Committed(4)})
    # And one that was there all the time, and did not come in time for its part.
    group.join("third", Dealt())
    group.join("other", other)
    await passing(2 * Dealt.session_timeout)
    assert not group.commit("one", one.generation, {THINGS: Committed(2)})
    assert group.committed == {THINGS: Committed(4)}


@in_virtual_time
async def test_a_member_that_comes_back_commits_nothing_before_it_has_its_part(log: InMemoryLog) -> None:
    """The generation is still that in which it was taken for dead: what it held then may be another's already."""
    group, one, other = log.cluster.group(GROUP), Dealt(), Dealt()
    group.join("one", one)
    group.join("other", other)
    group.join("one", one)
    group.leave("one")
    group.join("one", one)
    assert one.generation == group.generation
    assert not group.commit("one", one.generation, {THINGS: Committed(1)})
    group.join("other", other)
    assert group.commit("one", one.generation, {THINGS: Committed(1)})


@in_virtual_time
async def test_a_silent_member_is_taken_for_dead_after_its_session_and_comes_back(log: InMemoryLog) -> None:
    member, other = Member(log, "things", GROUP), Member(InMemoryLog(log.cluster), "things", GROUP)
    async with members(member, other):
        await member.joined(2)
        await other.joined(2)
        log.cut_off()
        await passing(30)
        assert len(other.held) == 2
        await passing(30)
        assert (len(other.held), len(member.held)) == (4, 2)
        log.reconnect()
        await eventually(lambda: len(member.held) == len(other.held) == 2, "a share for each")


@in_virtual_time
async def test_a_member_that_nobody_polls_leaves_and_comes_back_with_the_next_poll(log: InMemoryLog) -> None:
    member = Member(log, "things", GROUP)
    async with members(member):
        await member.joined(4)
        await member.pause_polling()
        await passing(299)
        assert len(log.cluster.members(GROUP)) == 1
        await passing(10)
        assert not log.cluster.members(GROUP)
        assert await member.consumer.fetch(timeout=1, maximum=1) == {}
        await eventually(lambda: member.history[-1][0] == "assigned" and len(member.history) == 3, "its return")


def course_of_things(seed: int) -> list[tuple[int, bytes | None]]:
    """What stands in the log after several writers wrote over a slow network."""
    chance = random.Random(seed)
    cluster = InMemoryCluster(now=lambda: 0, latency=lambda: chance.uniform(0.001, 0.1))
    cluster.create_topics([plain_topic("things", 1)])

    async def scenario() -> None:
        outcomes = Outcomes()
        writers = [InMemoryLog(cluster).writer() for _ in range(4)]
        for writer in writers:
            await writer.start()
        for number in range(40):
            writers[number % 4].submit(THINGS, numbered([number]), outcomes.expect(number))
            await passing(chance.uniform(0, 0.05))
        assert all(isinstance(outcome, Acknowledged) for outcome in (await outcomes.all()).values())
        for writer in writers:
            await writer.stop(timeout=1)

    run_in_virtual_time(scenario())
    return [(record.offset, record.value) for record in cluster.records(THINGS)]


def test_a_seed_decides_the_whole_course_of_things() -> None:
    assert course_of_things(1) == course_of_things(1)
    assert course_of_things(1) != course_of_things(2)


@in_virtual_time
async def test_a_stop_gives_up_what_is_under_way_and_it_may_land_all_the_same(log: InMemoryLog) -> None:
    outcomes = Outcomes()
    writer = log.writer()
    await writer.start()
    held = log.hold_appends("things")
    writer.submit(THINGS, numbered([0]), outcomes.expect(0))
    await held.caught()
    writer.submit(THINGS, numbered([1]), outcomes.expect(1))
    await writer.stop(timeout=5)
    told = await outcomes.all()
    assert [isinstance(told[number], AppendFailed) for number in range(2)] == [True, True]
    assert [getattr(told[number], "may_land", None) for number in range(2)] == [True, False]
    held.release()
    await eventually(lambda: stored(log) == [0], "what was on its way")
