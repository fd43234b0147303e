"""What a conversation was when an attempt began: by the order of the log, by what the job wrote, and by clocks that differ."""

from __future__ import annotations

import gc
import random
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.codec import encode
from headrace.core.partitions import key_partition
from headrace.core.records import conversation_key, memory_key
from headrace.core.timestamps import format_timestamp, parse_timestamp
from headrace.memory import tables
from headrace.models import MemoryCompaction, MemoryEntry
from headrace.ports import ConversationRef, MemorySnapshot
from headrace.replay.history import Began, RecordedJob
from headrace.replay.recorded.memory_history import PastConversations
from headrace.replay.recorded.past_conversation import PastConversation
from headrace.replay.rerunning.attempts import PastAttempt
from headrace.testing.storage import StoredRecord
from support.histories import STARTED_AT, past_attempt, recorded_job

HERE = ConversationRef("acme", "ann", "trip")
AT = datetime(2026, 3, 2, 9, tzinfo=UTC)
PARTITIONS = 8
JOB = "a-job"


class Written:
    """Records of conversations, as writers with clocks of their own add them.

    Args:
        by_broker: whether their times are the broker's.
    """

    def __init__(self, *, by_broker: bool = False) -> None:
        self.records: list[StoredRecord] = []
        self._by_broker = by_broker

    def say(self, entry_id: str, at: int, *, by_broker: bool | None = None, where: ConversationRef = HERE) -> None:
        entry = MemoryEntry(**where._asdict(), id=entry_id, role="user", content=f"text of {entry_id}", at=AT)
        self._add(where, encode(entry), at, self._by_broker if by_broker is None else by_broker)

    def compact(self, base: int, supersedes: Sequence[str], at: int, job_id: str = JOB, summary: str = "") -> None:
        number = len(self.records)
        compaction = MemoryCompaction(
            **HERE._asdict(),
            id=summary or f"s{number}",
            job_id=job_id,
            base_version=base,
            supersedes=list(supersedes),
            summary="short",
            at=AT,
        )
        self._add(HERE, encode(compaction), at, self._by_broker)

    def _add(self, where: ConversationRef, value: bytes, at: int, by_broker: bool) -> None:
        number = len(self.records)
        partition = key_partition(conversation_key(*where), PARTITIONS)
        key = memory_key(*where, f"token-{number}")
        self.records.append(StoredRecord("memory", partition, number, at, key, value, timestamp_type=int(by_broker)))

    def past(self, *, most_folded: int = 1_000) -> PastConversations:
        past = PastConversations(most_folded=most_folded)
        past.add(self.records, PARTITIONS)
        return past


def began(at: int, *, by_engine: int | None = None, accepted_at: int = 0, attempt: int = 1) -> Began:
    return Began(at, at if by_engine is None else by_engine, accepted_at, JOB, attempt)


def ids(snapshot: MemorySnapshot) -> list[str]:
    return [each.id for each in snapshot.entries]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=1)),
        st.tuples(st.sampled_from(["compact", "late", "again"]), st.lists(st.sampled_from("abcdefghx"), min_size=1, max_size=4)),
    ),
    max_size=200,
)


@given(STEPS)
def test_after_each_record_it_is_what_a_store_reads(steps: list[tuple[str, list[str]]]) -> None:
    check_after_each_record(steps)


@pytest.mark.parametrize("seed", range(3))
def test_so_it_is_of_long_conversations(seed: int) -> None:
    chance, steps = random.Random(seed), list[tuple[str, list[str]]]()
    for number in range(600):
        steps.append(("say", [f"e{number}"]))
        if chance.random() < 0.1:
            steps.append(("compact", [f"e{chance.randint(max(0, number - 30), number)}" for _ in range(12)]))
    check_after_each_record(steps)


def check_after_each_record(steps: Sequence[tuple[str, list[str]]]) -> None:
    """Compares what is told of the moment after each record with what a store's tables made of them so far."""
    written, version = Written(), -1
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for statement in tables.SCHEMA.statements:
            connection.execute(statement)
        read = [tables.snapshot(connection, HERE)]
        for number, (what, names) in enumerate(steps):
            if what == "say":
                written.say(names[0], number)
            else:
                job_id = JOB if what == "again" else f"job-{number}"
                written.compact(version - (what == "late"), names, number, job_id, summary=f"s{number % 90}")
            tables.add_rows(connection, tables.rows_of(written.records[-1:], PARTITIONS))
            read.append(tables.snapshot(connection, HERE))
            version = read[-1].version
    past = written.past()
    assert [past.at(HERE, number - 1) for number in range(len(read))] == read


def test_many_jobs_of_one_conversation_cost_about_what_they_read() -> None:
    """5,000 entries, each tenth of which a compaction takes the place of; 1,000 jobs, in no order of time."""
    written, many, version = Written(by_broker=True), 5_000, -1
    for number in range(many):
        written.say(f"e{number}", number)
        if number % 500 == 499:
            written.compact(version, [f"e{each}" for each in range(number - 49, number)], number, f"job-{number}")
            version = len(written.records) - 1
    past = written.past(most_folded=10_000)
    spent = time.process_time()
    sizes = [len(past.at(HERE, began(at * 7919 % many)).entries) for at in range(1_000)]
    assert time.process_time() - spent < 10.0, "to fold it for each of them took several minutes"
    assert max(sizes) > 4_000


def test_only_so_many_conversations_are_kept_folded() -> None:
    written = Written()
    wheres = [HERE._replace(conversation_id=f"c{number}") for number in range(50)]
    for where in wheres:
        for number in range(10):
            written.say(f"{number}", number, where=where)
    past = written.past(most_folded=100)
    for _ in range(2):
        for where in wheres:
            assert ids(past.at(where, 3)) == ["0", "1", "2", "3"]
    assert (
        sum(
            isinstance(each, PastConversation) and each.rows[0].row.conversation.startswith("acme/ann/c")
            for each in gc.get_objects()
        )
        == 10
    )


@pytest.mark.parametrize("ahead", [-2_000, 300, 2_000])
def test_who_remembers_and_then_enqueues_has_his_words_seen_by_whatever_clock(ahead: int) -> None:
    """The client's clock is ahead of the engine's, and its job's record has its time, as has what it wrote before."""
    written = Written()
    written.say("before", 10_000 + ahead)
    written.say("after", 10_900 + ahead)
    seen = written.past().at(HERE, began(10_010, accepted_at=10_001 + ahead))
    if ahead >= 0:
        assert ids(seen) == ["before"]
    else:
        assert ids(seen) == ["before", "after"], "of clocks that are behind nothing tells"


def test_with_the_brokers_times_no_other_clock_counts() -> None:
    written = Written(by_broker=True)
    for number, at in enumerate((10_000, 10_005, 10_020)):
        written.say(f"e{number}", at)
    for by_engine, accepted_at in ((7_000, 13_000), (13_000, 7_000)):
        assert ids(written.past().at(HERE, began(10_010, by_engine=by_engine, accepted_at=accepted_at))) == ["e0", "e1"]


def test_a_topic_that_got_the_brokers_times_later_has_both() -> None:
    written = Written()
    written.say("old", 11_000)
    written.say("new", 10_000, by_broker=True)
    written.say("late", 10_500, by_broker=True)
    assert ids(written.past().at(HERE, began(10_010, accepted_at=11_001))) == ["old", "new"]
    assert ids(written.past().at(HERE, began(9_000, accepted_at=9_000))) == []


def test_what_stands_before_what_was_there_was_there_as_well() -> None:
    written = Written()
    for number, at in enumerate((1_000, 3_000, 2_000, 4_000)):
        written.say(f"e{number}", at)
    assert [ids(written.past().at(HERE, at)) for at in (999, 1_999, 2_000, 4_000)] == [
        [],
        ["e0"],
        ["e0", "e1", "e2"],
        ["e0", "e1", "e2", "e3"],
    ]


def test_what_the_attempt_wrote_itself_it_had_not_seen() -> None:
    """The client's clock is ahead by ten seconds, so that what was written meanwhile has times before the job's own."""
    written = Written()
    written.say("before", 20_000)
    written.say(f"{JOB}-1", 10_100)
    written.compact(-1, ["before"], 10_200)
    written.say("after", 10_300)
    past = written.past()
    assert ids(past.at(HERE, began(10_010, accepted_at=20_001))) == ["before"]
    assert ids(past.at(HERE, began(10_250, accepted_at=20_001, attempt=2))) == ["s2", f"{JOB}-1", "after"]
    assert ids(past.at(HERE, began(10_150, accepted_at=20_001, attempt=2))) == ["before", f"{JOB}-1"]
    # An hour and more later its id is a new job.
    assert ids(past.at(HERE, began(9_000_000, accepted_at=9_000_000))) == ["s2", f"{JOB}-1", "after"]


def stated(job: RecordedJob, instance: str, updated_at: int, made_at: int | None) -> RecordedJob:
    snapshot = {**(job.snapshot or {}), "instanceId": instance, "updatedAt": format_timestamp(updated_at)}
    return RecordedJob(job.record, job.source, job.offset, job.accepted_at, snapshot, (), snapshot_at=made_at)


@pytest.mark.parametrize("ahead", [-3_600_000, -300, 0, 300, 3_600_000])
def test_the_newest_snapshot_tells_how_the_engines_clock_differs_from_the_brokers(ahead: int) -> None:
    job = recorded_job("does", attempts=[past_attempt(1, "failed", ("E", "m")), past_attempt(2, "completed")])
    ended = STARTED_AT + 61_000
    told = stated(job, "i", ended, ended - ahead + 5)
    assert [PastAttempt(told, number).beginning for number in (1, None)] == [
        Began(STARTED_AT - ahead + 5, STARTED_AT, job.accepted_at, JOB, 1),
        Began(STARTED_AT + 60_000 - ahead + 5, STARTED_AT + 60_000, job.accepted_at, JOB, 2),
    ]
    # Another engine's clock tells nothing, nor does what a janitor wrote later, or a job that nobody began.
    for other in (stated(job, "another", ended, ended - ahead), stated(job, "i", ended, None)):
        assert PastAttempt(other, 1).beginning.at == STARTED_AT
    waiting = RecordedJob(job.record, job.source, job.offset, job.accepted_at, None)
    accepted = parse_timestamp(job.record["createdAt"])
    assert PastAttempt(waiting).beginning == Began(accepted, accepted, accepted, JOB, 1)
