"""Folding of states: what is taken apart in bulk comes out as it does by the rules, one record after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.ownership import Version
from headrace.core.records import lease_key, repeat_header, source_header, status_header, version_header
from headrace.core.status import TERMINAL
from headrace.ports import Header, TopicPartition
from headrace.replay.history import Span
from headrace.replay.recorded.folding import Claims, Place, place_of
from headrace.replay.recorded.joining import SETTLED_MILLISECONDS, Accepted, States
from headrace.replay.recorded.spans import ALL_TIME

WORKER, JOBS, PARTITIONS = "digest", 1, 2


class Read(NamedTuple):
    """A record of one partition."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header] = ()


Content = tuple[bytes | None, bytes | None, Sequence[Header]]
epochs = st.sampled_from([0, 2, 5])
versions = st.builds(Version, epochs, st.integers(0, 2), st.integers(1, 2))
partitions = st.integers(0, PARTITIONS - 1)
sources = st.builds(source_header, st.just(WORKER), partitions, st.sampled_from([*range(JOBS)] * 3 + [JOBS]))
statuses = st.sampled_from(["queued", "running", "running", "completed", "failed"]).map(status_header)


def snapshot(*headers: Header) -> Content:
    return b"job", b"{}", headers


def claim(partition: int, previous: int, instance: str) -> Content:
    raw = {"schemaVersion": 1, "kind": "claim", "workerName": WORKER, "partition": partition, "previous": previous}
    return lease_key(WORKER, partition, instance), orjson.dumps({**raw, "instanceId": instance}), ()


usual = st.builds(snapshot, sources, versions.map(version_header), statuses)
claims = st.builds(claim, partitions, st.integers(-1, 6), st.sampled_from(["one", "two"]))
unusual = st.one_of(
    st.builds(snapshot, sources, versions.map(version_header), statuses, versions.map(repeat_header)),
    st.builds(snapshot, sources, statuses, versions.map(version_header)),
    st.builds(snapshot, sources, st.just(("headrace-version", b"1/2")), statuses),
    st.builds(snapshot, sources, versions.map(version_header), st.just(("headrace-status", b"lost"))),
    st.builds(snapshot, st.just(("headrace-source", b"nowhere")), versions.map(version_header), statuses),
    st.just((b"job", b"{}", [("a", b""), ("b", b""), ("c", b"")])),
    sources.map(lambda source: (b"job", None, [source, ("headrace-version", b"1/1/1"), ("headrace-status", b"running")])),
    st.just((b"lease/digest/0/one", b"no json", ())),
)
logs = st.lists(st.one_of(usual, usual, usual, claims, unusual), min_size=5, max_size=12)


def accepted() -> dict[Place, Accepted]:
    return {
        place_of(WORKER, partition, offset): Accepted(
            WORKER, TopicPartition("queue", partition), Read(offset, 0, b"job", b'{"id":"other"}')
        )
        for partition in range(PARTITIONS)
        for offset in range(JOBS)
    }


@settings(max_examples=1_000)
@given(logs, st.integers(1, 12))
def test_what_is_taken_in_bulk_is_what_the_rules_give(log: list[Content], at_once: int) -> None:
    records = [Read(offset, 100 * offset, *content) for offset, content in enumerate(log)]
    ruled, rules, said = accepted(), Claims(), 0
    for record in records:
        seen = rules.see(record)
        if seen is not None and not seen.void and seen.place in ruled and ruled[seen.place].offer(seen, record):
            said = record.timestamp

    entries = accepted()
    states = States(entries, {}, {}, Span(0, 1))
    for first in range(0, len(records), at_once):
        states._take_all(records[first : first + at_once])
    assert entries == ruled
    assert states._claims.damaged == rules.damaged
    unfinished = sum(entry.status not in TERMINAL for entry in ruled.values())
    assert states._unfinished == unfinished
    assert states.said_until(set()) == (ALL_TIME.end if unfinished else said + SETTLED_MILLISECONDS)
