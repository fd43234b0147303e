"""What is read of a marker's topic."""

from __future__ import annotations

import asyncio
import os
import time

import orjson

from headrace.core.topics import Topics
from headrace.ports import NewRecord, TopicPartition
from headrace.replay.sandboxes.markers import ALIVE_KEY, MARKER_KEY, OVER_KEY, _read, find_marker, made_marker, silent_ones
from headrace.testing import InMemoryCluster, InMemoryLog
from support.sandboxes import GONE_PROCESS
from support.virtual_time import in_virtual_time


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


def marked(cluster: InMemoryCluster, name: str, process_id: int, at: int) -> TopicPartition:
    """A sandbox that gave a sign of life at that time, in milliseconds since the Unix epoch."""
    place = TopicPartition(Topics(name).replay_marker.name, 0)
    wire = {**made_marker(name, "a", ["count"], "2026-01-01T00:00:00.000Z").to_wire(), "processId": process_id}
    cluster.append(place, NewRecord(MARKER_KEY, orjson.dumps(wire)), NewRecord(ALIVE_KEY, b"{}"), timestamp=at)
    return place


@in_virtual_time
async def test_only_silence_while_it_is_looked_on_is_an_end() -> None:
    """Not the time of the last sign, which may be a day off either way: it is by the clock of some broker."""
    cluster, now = InMemoryCluster(), time.time_ns() // 1_000_000
    log, day = InMemoryLog(cluster), 86_400_000
    dead, gone = (f"a.replay-{what}" for what in ("dead", "gone"))
    running, held_up, ending = (f"a.replay-{what}" for what in ("running", "held-up", "ending"))
    process_of = {name: os.getpid() for name in (dead, running, held_up, ending)} | {gone: GONE_PROCESS}
    for name in process_of:
        await log.create_topics([Topics(name).replay_marker])
    places = {name: marked(cluster, name, number, now + day) for name, number in process_of.items()}
    found = [await find_marker(log, place.topic) for place in places.values()]
    looking = asyncio.create_task(silent_ones(log, [each for each in found if each is not None]))

    begun = asyncio.get_running_loop().time()
    for second in range(1, 59):
        await asyncio.sleep(1.0)
        if second % 2 == 0:
            cluster.append(places[running], NewRecord(ALIVE_KEY, b"{}"), timestamp=now - day)
    cluster.append(places[held_up], NewRecord(ALIVE_KEY, b"{}"), timestamp=now - day)
    cluster.append(places[ending], NewRecord(OVER_KEY, b"{}"), timestamp=now - day)

    assert {each.sandbox for each in (await looking).values()} == {dead, gone}
    assert 60 <= asyncio.get_running_loop().time() - begun <= 62


@in_virtual_time
async def test_of_a_process_that_is_gone_less_silence_is_enough() -> None:
    """It may run in another container, with the same name of the host."""
    cluster = InMemoryCluster()
    log, name = InMemoryLog(cluster), "a.replay-gone"
    await log.create_topics([Topics(name).replay_marker])
    found = await find_marker(log, marked(cluster, name, GONE_PROCESS, 0).topic)
    assert found is not None
    begun = asyncio.get_running_loop().time()
    assert await silent_ones(log, [found]) == {found.topic: found}
    assert 20 <= asyncio.get_running_loop().time() - begun <= 22
