"""What engines tell, through a pipe that may be full, cut anywhere or closed."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.lease import HeldLease, LeaseTiming
from headrace.core.recovery import PartitionRecovery
from headrace.core.snapshots import Writer
from headrace.engine.partition import OwnedPartition
from headrace.engine.supervised import Channel, Supervised
from headrace.ports import TopicPartition
from headrace.runtime import system_clock
from headrace.supervisor.told import Claim, Told

LINES = (
    b'{"engine": {"topic": "job-state"}, "grace": 5.0}\n'
    b'{"claims": [["a", 0, 3, 10, "i"], ["a", 1, 4, 11, "i.2"]], "until": 12.5}\n'
    b"no JSON\n"
    b'["no object"]\n'
    b'{"claims": "damaged"}\n'
    b'{"members": {"group": "member-1"}, "ready": true}\n'
    b'{"until": 13.25, "of a later version": 1}\n'
)


@given(cuts=st.lists(st.integers(0, len(LINES)), max_size=8))
def test_it_does_not_matter_where_the_pipe_cuts(cuts: list[int]) -> None:
    told = Told()
    edges = [0, *sorted(cuts), len(LINES)]
    for first, last in itertools.pairwise(edges):
        told.take(LINES[first:last])
    assert told.claims == [Claim("a", 0, 3, 10, "i"), Claim("a", 1, 4, 11, "i.2")]
    assert (told.until, told.grace, told.ready, told.farewell) == (13.25, 5.0, True, False)
    assert (told.engine, told.members) == ({"topic": "job-state"}, {"group": "member-1"})


def test_what_is_told_takes_the_place_of_what_was_told_before() -> None:
    told = Told()
    told.take(b'{"claims": [["a", 0, 3, 10, "i"]], "until": 1.0, "members": {"g": "m"}}\n')
    told.take(b'{"claims": [], "until": null, "members": {}}\n{"farewell": true')
    assert (told.claims, told.until, told.members, told.farewell) == ([], None, {}, False)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe, as its reading and its writing end."""
    ends = os.pipe()
    os.set_blocking(ends[0], False)
    yield ends
    for end in ends:
        os.close(end)


def read(told: Told, end: int) -> None:
    while True:
        try:
            told.take(os.read(end, 4_096))
        except BlockingIOError:
            return


def test_a_supervisor_that_reads_nothing_holds_nobody_up_and_finds_the_newest(pipe: tuple[int, int]) -> None:
    channel, told = Channel(pipe[1]), Told()
    claims = [["worker", number, number, number, "lease"] for number in range(500)]
    for number in range(100):
        channel.tell(claims=claims[: number + 1], until=float(number))
        channel.tell(members={"group": f"member-{number}"})
    read(told, pipe[0])
    assert told.until is not None and told.until < 99, "a pipe holds 64 KB, and this was more"
    channel.flush()
    read(told, pipe[0])
    assert (told.until, told.members, len(told.claims)) == (99.0, {"group": "member-99"}, 100)


def test_a_claim_is_told_of_with_the_name_of_its_lease(pipe: tuple[int, int]) -> None:
    life = os.pipe()
    supervised, told = Supervised(pipe[1], life[0]), Told()
    partition = OwnedPartition(TopicPartition("jobs", 4), 7, PartitionRecovery("w", 4, 0), lease_name="i.2")
    partition.writer, partition.clock = Writer("i", 10), system_clock
    partition.lease = HeldLease(LeaseTiming(), system_clock())
    try:
        supervised.holds(partition)
        read(told, pipe[0])
        assert told.claims == [Claim("w", 4, 7, 10, "i.2")]
    finally:
        supervised.released(partition)  # and the timer of its lease is off
        for end in life:
            os.close(end)
    read(told, pipe[0])
    assert told.claims == []


def test_a_supervisor_that_is_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    channel = Channel(writing)
    os.close(reading)
    channel.tell(until=1.0)
    channel.tell(until=2.0)
    os.close(writing)
