"""Topics that are to last are made in no sandbox of a replay, also where that comes at the same time."""

from __future__ import annotations

from collections.abc import Collection

import orjson
import pytest

from headrace import NamespaceIsSandbox
from headrace.core.topics import Topic, Topics
from headrace.ports import NewRecord, TopicPartition
from headrace.replay.sandboxes.markers import made_marker
from headrace.sandbox_refusal import MARKER_KEY, create_live_topics
from headrace.testing import InMemoryCluster, InMemoryLog

TOPICS = Topics("mine")
PLACE = TopicPartition(TOPICS.replay_marker.name, 0)
MARKER = NewRecord(MARKER_KEY, orjson.dumps(made_marker("mine", "live", [], "2026-01-01T00:00:00.000Z").to_wire()))


async def made(cluster: InMemoryCluster) -> set[str]:
    """What is there when topics were made, or refused."""
    await create_live_topics(InMemoryLog(cluster), TOPICS, [TOPICS.job_state])
    return cluster.topic_names()


async def test_where_a_marker_stands_nothing_is_made() -> None:
    cluster = InMemoryCluster()
    cluster.create_topics([TOPICS.replay_marker])
    cluster.append(PLACE, MARKER, NewRecord(b"alive", b"{}"))
    with pytest.raises(NamespaceIsSandbox, match=r"sandbox of a replay of jobs of live: .* --namespace live`"):
        await made(cluster)
    assert cluster.topic_names() == {PLACE.topic}


OTHERS = {
    "nothing": [],
    "something else": [NewRecord(MARKER_KEY, b"{}")],
    "a marker that is not the first": [NewRecord(b"alive", b"{}"), MARKER],
    "a marker of another": [NewRecord(MARKER_KEY, (MARKER.value or b"").replace(b'"mine', b'"other'))],
}


@pytest.mark.parametrize("what", OTHERS)
async def test_what_is_no_marker_refuses_nobody(what: str) -> None:
    cluster = InMemoryCluster()
    cluster.create_topics([TOPICS.replay_marker])
    if OTHERS[what]:
        cluster.append(PLACE, *OTHERS[what])
    assert await made(cluster) == {PLACE.topic, TOPICS.job_state.name}


class Overtaken(InMemoryLog):
    """A cluster in which a replay that has seen nothing of the namespace writes its marker just before topics are made."""

    async def create_topics(self, topics: Collection[Topic]) -> None:
        self.cluster.create_topics([TOPICS.replay_marker])
        self.cluster.append(PLACE, MARKER)
        await super().create_topics(topics)


async def test_a_sandbox_that_comes_meanwhile_is_seen() -> None:
    with pytest.raises(NamespaceIsSandbox):
        await create_live_topics(Overtaken(InMemoryCluster()), TOPICS, [TOPICS.job_state])
