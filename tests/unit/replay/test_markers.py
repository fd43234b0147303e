"""What is read of a marker's topic."""

from __future__ import annotations

import orjson

from headrace.core.topics import Topics
from headrace.ports import NewRecord, TopicPartition
from headrace.replay.sandboxes.markers import ALIVE_KEY, MARKER_KEY, OVER_KEY, _read, find_marker, made_marker
from headrace.testing import InMemoryCluster, InMemoryLog


async def test_of_a_long_topic_only_the_first_record_and_the_last_ones_are_held() -> None:
    """Anybody may name a topic like that, and write into it for a year."""
    cluster, topics = InMemoryCluster(), Topics("a.replay-1")
    log, place = InMemoryLog(cluster), TopicPartition(topics.replay_marker.name, 0)
    await log.create_topics([topics.replay_marker])
    marker = made_marker("a.replay-1", "a", ["count"], "2026-01-01T00:00:00.000Z")
    cluster.append(place, NewRecord(MARKER_KEY, orjson.dumps(marker.to_wire())))
    for number in range(5_000):
        cluster.append(place, NewRecord(ALIVE_KEY, b"{}"), timestamp=number)
    cluster.append(place, NewRecord(OVER_KEY, b"{}"), timestamp=6_000)

    found = await find_marker(log, place.topic)
    assert found is not None
    assert (found.marker, found.has_ended) == (marker, True)
    held, end = await _read(log, place)
    assert [record.offset for record in held] == [0, *range(4_992, 5_002)]
    assert end == 5_002


def test_a_marker_names_every_group_that_engines_and_gateways_have_there() -> None:
    """What were left of these would keep the name from being used again."""
    topics = Topics("a.replay-1")
    marker = made_marker("a.replay-1", "a", ["count"], "2026-01-01T00:00:00.000Z")
    assert set(marker.groups) == {topics.janitors, topics.tool_call_group(), topics.group("count")}


async def test_a_topic_that_is_gone_is_nobodys() -> None:
    assert await find_marker(InMemoryLog(InMemoryCluster()), "a.replay-1.replay.marker") is None
