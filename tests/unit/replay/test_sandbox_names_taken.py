"""A replay that has lost its sandbox notices it, also when another has the name by now, and leaves that one's alone."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path

import orjson
import pytest

from headrace import Settings
from headrace.core.topics import Topic, Topics
from headrace.errors import BrokerError
from headrace.models import SandboxMarker
from headrace.ports import Log, NewRecord, TopicPartition
from headrace.replay.sandboxes import cleaning, markers
from headrace.replay.sandboxes.cleaning import clean_sandboxes
from headrace.replay.sandboxes.markers import (
    ALIVE_KEY,
    MARKER_KEY,
    OVER_KEY,
    REMOVED_KEY,
    find_marker,
    made_marker,
    silent_ones,
    take_over,
)
from headrace.replay.sandboxes.removing import remove_own
from headrace.replay.sandboxes.sandbox import _mark, _Watch
from headrace.replay_errors import SandboxInUse, SandboxLost
from headrace.testing import InMemoryLog
from support.virtual_time import in_virtual_time

NAME = "a.replay-mine"
TOPIC = Topics(NAME).replay_marker
PLACE = TopicPartition(TOPIC.name, 0)
OWN = made_marker(NAME, "a", ["count"], "2026-01-01T00:00:00.000Z")
OTHER = made_marker(NAME, "a", ["count"], "2026-02-02T00:00:00.000Z")


async def begin(log: InMemoryLog, marker: SandboxMarker | None, *signs: bytes) -> None:
    """A replay takes the name, and gives these signs."""
    await log.create_topics([TOPIC])
    if marker is not None:
        log.cluster.append(PLACE, NewRecord(MARKER_KEY, orjson.dumps(marker.to_wire())))
    for sign in signs:
        log.cluster.append(PLACE, NewRecord(sign, b"{}"))


async def watching(log: InMemoryLog) -> _Watch:
    """The watch of a replay that has given one sign."""
    await begin(log, OWN)
    writer = log.writer()
    await writer.start()
    watch = _Watch(log, writer, OWN)
    await watch._give_sign()
    assert not watch.is_lost
    return watch


@pytest.mark.parametrize("who", ["another's", "nobody's", "removed", "still its own"])
@in_virtual_time
async def test_who_was_suspended_looks_whose_the_sandbox_is(who: str) -> None:
    """All topics are there that it knows, and more was written to the topic than it has written."""
    log = InMemoryLog()
    watch = await watching(log)
    if who in ("another's", "nobody's"):
        await log.delete_topics([TOPIC.name])
        await begin(log, OTHER if who == "another's" else None, *[ALIVE_KEY] * 5)
    else:
        log.cluster.append(PLACE, NewRecord(REMOVED_KEY if who == "removed" else b"something else", b"{}"))
    await watch._give_sign()
    assert watch.is_lost == (who != "still its own")
    await watch.writer.stop(timeout=1.0)


@pytest.mark.parametrize("marker", [OWN, OTHER], ids=["its own", "another's"])
@in_virtual_time
async def test_who_was_silent_for_long_looks_though_there_is_no_gap(marker: SandboxMarker) -> None:
    """As much stands in the topic of the other as it has written itself."""
    log = InMemoryLog()
    watch = await watching(log)
    await log.delete_topics([TOPIC.name])
    await begin(log, marker, ALIVE_KEY)
    await asyncio.sleep(30.0)
    await watch._give_sign()
    assert watch.is_lost == (marker is OTHER)
    await watch.writer.stop(timeout=1.0)


@in_virtual_time
async def test_whose_it_is_is_looked_up_again_when_it_could_not_be_read() -> None:
    log = InMemoryLog()
    watch = await watching(log)
    await log.delete_topics([TOPIC.name])
    await begin(log, OTHER, *[ALIVE_KEY] * 5)
    log.refuse_requests(BrokerError("away"))
    await watch._give_sign()
    assert not watch.is_lost
    log.accept_requests()
    await watch._give_sign()
    assert watch.is_lost
    await watch.writer.stop(timeout=1.0)


@pytest.mark.parametrize("host", ["this", "another"])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
@in_virtual_time
async def test_the_end_of_a_replay_leaves_the_sandbox_of_another_alone(tmp_path: Path, when: str, host: str) -> None:
    """Also one whose marker is not written yet. Its views are in the same folder where it is on this machine."""
    log, settings = InMemoryLog(), Settings(namespace="a", data_directory=tmp_path)
    views = tmp_path / "views" / NAME
    views.mkdir(parents=True)
    other = OTHER if host == "this" else OTHER.model_copy(update={"host": "elsewhere"})
    await begin(log, other if when == "before" else None)
    await log.create_topics([Topics(NAME).job_state])
    ending = asyncio.create_task(remove_own(log, settings, OWN))
    if when == "meanwhile":
        await asyncio.sleep(3.0)
        assert not ending.done()
        await begin(log, other)
    await ending
    assert await log.topic_names() == {TOPIC.name, Topics(NAME).job_state.name}
    found = await find_marker(log, TOPIC.name)
    assert found is not None and found.marker == other
    assert views.exists() == (host == "this")


@pytest.mark.parametrize("what", ["it is gone", "it was taken over", "another was first"])
@in_virtual_time
async def test_a_replay_whose_topic_was_taken_from_it_before_its_marker_stood_there(what: str) -> None:
    log = InMemoryLog()

    class Taken(InMemoryLog):
        async def create_topics(self, topics: Collection[Topic]) -> None:
            await begin(log, OTHER if what == "another was first" else None, ALIVE_KEY)
            if what == "it is gone":
                await log.delete_topics([TOPIC.name])

    taken = Taken(log.cluster)
    writer = taken.writer()
    await writer.start()
    with pytest.raises(SandboxInUse if what == "another was first" else SandboxLost):
        await _mark(taken, writer, OWN)
    await writer.stop(timeout=1.0)


@in_virtual_time
async def test_clean_gives_a_replay_time_to_write_its_marker() -> None:
    log, settings = InMemoryLog(), Settings(namespace="a")
    await begin(log, None)
    cleaning = asyncio.create_task(clean_sandboxes(log, settings, every=True))
    await asyncio.sleep(3.0)
    log.cluster.append(PLACE, NewRecord(b"other", b"{}"))
    cleaned = await cleaning
    assert [found.topic for found in cleaned.spared] == [TOPIC.name]
    assert cleaned.removed == []
    assert TOPIC.name in await log.topic_names()


@in_virtual_time
async def test_clean_removes_a_topic_that_stays_empty() -> None:
    log, settings = InMemoryLog(), Settings(namespace="a")
    await begin(log, None)
    begun = asyncio.get_running_loop().time()
    cleaned = await clean_sandboxes(log, settings, every=True)
    assert [found.topic for found in cleaned.removed] == [TOPIC.name]
    assert markers.BEGIN_SECONDS <= asyncio.get_running_loop().time() - begun <= markers.BEGIN_SECONDS + 2
    assert await log.topic_names() == set()


@in_virtual_time
async def test_clean_deletes_no_topic_in_which_something_stands_by_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has looked, and before it acts the replay has written."""
    log, settings = InMemoryLog(), Settings(namespace="a")
    await begin(log, None)

    async def just_before(asked: Log, topic: str) -> bool:
        log.cluster.append(PLACE, NewRecord(b"other", b"{}"))
        return await take_over(asked, topic)

    monkeypatch.setattr(cleaning, "take_over", just_before)
    cleaned = await clean_sandboxes(log, settings, every=True)
    assert [found.topic for found in cleaned.spared] == [TOPIC.name]
    assert await log.topic_names() == {TOPIC.name}


@in_virtual_time
async def test_one_that_cannot_be_read_for_a_moment_ends_no_look() -> None:
    log = InMemoryLog()
    await begin(log, OWN, ALIVE_KEY)
    found = await find_marker(log, TOPIC.name)
    assert found is not None
    looking = asyncio.create_task(silent_ones(log, [found]))
    for second in range(2, 60, 2):
        await asyncio.sleep(2.0)
        if second == 10:
            log.refuse_requests(BrokerError("away"))
        if second == 20:
            log.accept_requests()
    log.cluster.append(PLACE, NewRecord(OVER_KEY, b"{}"))
    assert await looking == {}

    log.refuse_requests(BrokerError("away"))
    silent = await silent_ones(log, [found])
    assert [each.unreadable for each in silent.values()] == ["away"]
