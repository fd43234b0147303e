"""What is to last is made in no namespace that is named like the sandbox of a replay, and no sandbox is named otherwise."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from headrace import NamespaceIsSandbox, Settings
from headrace.core.topics import Topics
from headrace.replay.sandboxes.markers import made_marker
from headrace.replay.sandboxes.sandbox import sandbox_settings
from headrace.sandbox_refusal import create_live_topics
from headrace.testing import InMemoryCluster, InMemoryLog


@pytest.mark.parametrize("name", ["mine.replay-1", "mine.replay-", ".replay-1", "a.replay-b.replay-c"])
async def test_in_a_namespace_of_such_a_name_nothing_is_made(name: str) -> None:
    cluster, topics = InMemoryCluster(), Topics(name)
    with pytest.raises(NamespaceIsSandbox, match=r"is named like the sandbox of a replay of jobs of .* Give another namespace"):
        await create_live_topics(InMemoryLog(cluster), topics, [topics.job_state])
    assert cluster.topic_names() == set()


@pytest.mark.parametrize("name", ["mine", "mine.replay", "replay-1", "mine-replay-1", "mine.replays-1"])
async def test_any_other_name_is_a_live_systems(name: str) -> None:
    cluster, topics = InMemoryCluster(), Topics(name)
    await create_live_topics(InMemoryLog(cluster), topics, [topics.job_state])
    assert cluster.topic_names() == {topics.job_state.name}


@pytest.mark.parametrize("asked", ["1", "mine.replay-1"])
def test_a_sandbox_has_such_a_name_whatever_is_asked_for(asked: str) -> None:
    assert sandbox_settings(Settings(namespace="mine"), asked, 1).namespace == "mine.replay-1"


@pytest.mark.parametrize("asked", ["mine", "staging", "other.replay-1"])
def test_no_sandbox_gets_the_name_of_a_live_system(asked: str) -> None:
    assert sandbox_settings(Settings(namespace="mine"), asked, 1).namespace == f"mine.replay-{asked}"


@pytest.mark.parametrize("name", ["mine", "staging", "mine.replay", "other.replay-1"])
def test_no_marker_makes_a_sandbox_of_another_namespace(name: str) -> None:
    with pytest.raises(ValidationError, match=r"a sandbox of mine is named mine.replay-<id>"):
        made_marker(name, "mine", [], "2026-01-01T00:00:00.000Z")
