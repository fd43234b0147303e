"""What replays have left in a cluster is removed, all of it and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from typing import Any

import orjson
import pytest

from headrace import Settings
from headrace.core.topics import Topics
from headrace.kafka.log import KafkaLog
from headrace.ports import NewRecord, TopicPartition
from headrace.replay.sandboxes import markers, removing
from headrace.replay.sandboxes.cleaning import clean_sandboxes
from headrace.replay.sandboxes.markers import MARKER_KEY, made_marker
from headrace.replay.sandboxes.sandbox import opened_sandbox, sandbox_settings
from headrace.replay.sandboxes.sandboxed import SandboxRun
from headrace.replay_errors import SandboxLeft, SandboxLost
from support.clusters import state_of
from support.engines import eventually
from support.log import plain_topic
from support.recorded import Today
from support.sandboxes import GONE_PROCESS, Count, odd_fails, of_namespace, plain, replay_of


@pytest.fixture
def sandbox(settings: Settings) -> Settings:
    return sandbox_settings(settings, f"{settings.namespace}.replay-1", 10)


@pytest.fixture
async def left_behind(log: KafkaLog, settings: Settings, sandbox: Settings) -> AsyncIterator[str]:
    """A sandbox that was kept, with views on this machine; and gone in the end."""
    (settings.data_directory / "views" / sandbox.namespace).mkdir(parents=True)
    async with opened_sandbox(log, sandbox, settings.namespace, ["count"], keep=True):
        await SandboxRun(log, sandbox, {"count": Count()}, replay_of(10, Today(odd_fails))).run()
    yield sandbox.namespace
    await log.delete_topics([name for name in await log.topic_names() if name.startswith(f"{sandbox.namespace}.")])


async def test_clean_removes_what_was_kept_at_once(log: KafkaLog, settings: Settings, left_behind: str) -> None:
    removed, *_ = await clean_sandboxes(log, settings)
    assert left_behind in [found.sandbox for found in removed]
    assert of_namespace(await state_of(settings), left_behind) == []
    assert not (settings.data_directory / "views" / left_behind).exists()


@pytest.mark.parametrize("hours", [-2, 0, 2], ids=["its clock is behind", "its clock is right", "its clock is ahead"])
async def test_clean_spares_a_replay_that_runs_unless_it_is_told_to(
    log: KafkaLog, settings: Settings, sandbox: Settings, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """Whoever cleans may have another time than the brokers, and than the replay."""
    async with opened_sandbox(log, sandbox, settings.namespace, ["count"], keep=False):
        right = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: right() + hours * 3_600_000_000_000)
        removed, spared, *_ = await clean_sandboxes(log, settings)
        assert sandbox.namespace not in [found.sandbox for found in removed]
        assert sandbox.namespace in [found.sandbox for found in spared]

        removed, *_ = await clean_sandboxes(log, settings, every=True)
        assert sandbox.namespace in [found.sandbox for found in removed]
        assert of_namespace(await state_of(settings), sandbox.namespace) == []


async def test_clean_removes_what_gives_no_sign_while_it_looks_on(
    log: KafkaLog, settings: Settings, sandbox: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last sign may be of a moment ago, or of tomorrow: the brokers' clock may be any."""
    monkeypatch.setattr("headrace.replay.sandboxes.sandbox.ALIVE_EVERY_SECONDS", 3_600.0)
    monkeypatch.setattr(markers, "SILENT_SECONDS", 2.0)
    async with opened_sandbox(log, sandbox, settings.namespace, ["count"], keep=False):
        removed, *_ = await clean_sandboxes(log, settings)
        assert sandbox.namespace in [found.sandbox for found in removed]
        assert of_namespace(await state_of(settings), sandbox.namespace) == []


@pytest.mark.parametrize("trick", ["no marker", "foreign", "copied", "names others", "of other jobs"])
async def test_clean_touches_nothing_without_a_marker(log: KafkaLog, settings: Settings, trick: str) -> None:
    """Whatever a topic is called, and whatever somebody has written there."""
    name, other = f"{settings.namespace}.replay-2", f"{settings.namespace}.replay-other"
    marker = made_marker(other if trick == "copied" else name, settings.namespace, ["count"], "2026-01-01T00:00:00.000Z")
    value: dict[str, Any] = {**marker.to_wire(), "processId": GONE_PROCESS}
    if trick == "of other jobs":
        value["namespace"] = other
    if trick == "names others":
        value["topics"] = [f"{other}.job-state"]
    topics = [Topics(other).job_state, plain(f"{name}.job-state"), plain(f"{name}.jobs.count")]
    await log.create_topics(topics)
    writer = log.writer()
    await writer.start()
    try:
        if trick != "no marker":
            await log.create_topics([Topics(name).replay_marker])
            record = NewRecord(MARKER_KEY, b"not a marker" if trick == "foreign" else orjson.dumps(value))
            await writer.append(TopicPartition(Topics(name).replay_marker.name, 0), record, timeout=30)
        before = await state_of(settings)
        removed, spared, *_ = await clean_sandboxes(log, settings, every=True)
        assert name not in [found.sandbox for found in removed]
        assert (name in [found.sandbox for found in spared]) == (trick != "no marker")
        assert await state_of(settings) == before
    finally:
        await writer.stop(timeout=5)
        names = [*(topic.name for topic in topics), Topics(name).replay_marker.name]
        await log.delete_topics([each for each in names if each in await log.topic_names()])


@pytest.mark.parametrize("case", ["not all", "named by somebody", "not alone", "once written", "alone"])
async def test_an_empty_topic_that_is_named_like_a_marker(log: KafkaLog, settings: Settings, case: str) -> None:
    """It goes only where a replay of this namespace was killed that had made nothing else, and only by --all."""
    name = f"{settings.namespace}.mine" if case == "named by somebody" else f"{settings.namespace}.replay-3"
    topic, beside = Topics(name).replay_marker, [plain(f"{name}.job-state")] if case == "not alone" else []
    await log.create_topics([topic, *beside])
    try:
        if case == "once written":
            writer = log.writer()
            await writer.start()
            await writer.append(TopicPartition(topic.name, 0), NewRecord(b"key", b"a value"), timeout=30)
            await writer.stop(timeout=5)
            await log.delete_records({TopicPartition(topic.name, 0): 1})
        removed, spared, *_ = await clean_sandboxes(log, settings, every=case != "not all")
        assert (topic.name in [found.topic for found in removed]) == (case == "alone")
        found = [each.is_empty for each in spared if each.topic == topic.name]
        assert found == ([] if case == "alone" else [case != "once written"])
        left = {each.name for each in (topic, *beside)} if case != "alone" else set()
        assert {each for each in await log.topic_names() if each.startswith(f"{name}.")} == left
    finally:
        names = await log.topic_names()
        await log.delete_topics([each.name for each in (topic, *beside) if each.name in names])


@pytest.mark.parametrize("worker", ["replay-marker", "marker", "replay"])
async def test_clean_leaves_every_queue_alone(log: KafkaLog, settings: Settings, worker: str) -> None:
    """Whatever its worker is called; the job stands in some partition, and the others are empty."""
    queue = Topics(settings.namespace).jobs(worker)
    await log.create_topics([queue])
    writer = log.writer()
    await writer.start()
    try:
        await writer.append(TopicPartition(queue.name, 3), NewRecord(b"key", b"{}"), timeout=30)
        removed, spared, *_ = await clean_sandboxes(log, settings, every=True)
        assert queue.name not in [found.topic for found in (*removed, *spared)]
        assert queue.name in await log.topic_names()
    finally:
        await writer.stop(timeout=5)
        await log.delete_topics([queue.name])


class MadeAgain(KafkaLog):
    """A cluster in which somebody who is just going asks for a topic that was deleted a moment ago, and the broker makes it."""

    again = True

    async def delete_topics(self, names: Collection[str]) -> None:
        await super().delete_topics(names)
        if names and self.again:
            self.again = False
            await self.create_topics([plain_topic(next(iter(names)))])


async def test_a_topic_that_is_made_again_is_deleted_again(settings: Settings, sandbox: Settings) -> None:
    log = MadeAgain(settings)
    async with opened_sandbox(log, sandbox, settings.namespace, ["count"], keep=False):
        await log.create_topics([Topics(sandbox.namespace).job_state])
    assert not log.again
    assert of_namespace(await state_of(settings), sandbox.namespace) == []
    await log.close()


class MadeAgainAlways(MadeAgain):
    """The same, of somebody who does not go."""

    async def delete_topics(self, names: Collection[str]) -> None:
        self.again = True
        await super().delete_topics(names)


@pytest.fixture
async def besieged(settings: Settings, sandbox: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KafkaLog]:
    """A cluster in which no topic of a sandbox stays away, until the test is over."""
    monkeypatch.setattr(removing, "_MOST_SECONDS", 2.0)
    log = MadeAgainAlways(settings)
    yield log
    await KafkaLog.delete_topics(log, [name for name in await log.topic_names() if name.startswith(f"{sandbox.namespace}.")])
    await log.close()


async def test_what_cannot_be_removed_is_told_and_found_again(
    besieged: KafkaLog, log: KafkaLog, settings: Settings, sandbox: Settings
) -> None:
    state, marker = Topics(sandbox.namespace).job_state, Topics(sandbox.namespace).replay_marker.name
    with pytest.raises(SandboxLeft, match=rf"{sandbox.namespace} is not removed: whenever {state.name} is deleted") as left:
        async with opened_sandbox(besieged, sandbox, settings.namespace, ["count"], keep=False):
            await besieged.create_topics([state])
    assert f"`headrace replay clean --namespace {settings.namespace}`" in str(left.value)
    assert marker in await log.topic_names()

    removed, _, failed, _ = await clean_sandboxes(besieged, settings, every=True)
    assert sandbox.namespace not in [found.sandbox for found in removed]
    assert sandbox.namespace in [found.sandbox for found, _ in failed]
    assert marker in await log.topic_names()

    removed, _, failed, _ = await clean_sandboxes(log, settings, every=True)
    assert sandbox.namespace in [found.sandbox for found in removed]
    assert failed == []
    assert of_namespace(await state_of(settings), sandbox.namespace) == []


async def test_a_replay_hears_of_its_end_though_its_topics_are_always_made_again(
    besieged: KafkaLog, log: KafkaLog, settings: Settings, sandbox: Settings
) -> None:
    """As its own engine does: whenever it looks, all that it has seen is there."""
    with pytest.raises(SandboxLost):
        async with opened_sandbox(log, sandbox, settings.namespace, ["count"], keep=False) as lost:
            await log.create_topics([Topics(sandbox.namespace).job_state])
            _, _, failed, _ = await clean_sandboxes(besieged, settings, every=True)
            assert sandbox.namespace in [found.sandbox for found, _ in failed]
            async with asyncio.timeout(30):
                await lost
    assert of_namespace(await state_of(settings), sandbox.namespace) == []


async def test_what_somebody_writes_into_the_topic_of_a_marker_ends_no_replay(
    log: KafkaLog, settings: Settings, sandbox: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.replay.sandboxes.sandbox.ALIVE_EVERY_SECONDS", 0.05)
    place = TopicPartition(Topics(sandbox.namespace).replay_marker.name, 0)
    async with opened_sandbox(log, sandbox, settings.namespace, ["count"], keep=False) as lost:
        writer = log.writer()
        await writer.start()
        written = await writer.append(place, NewRecord(b"something else", b"{}"), timeout=30)
        await writer.stop(timeout=5)

        async def has_looked() -> bool:
            return (await state_of(settings)).ends[place.topic][0] > written.offset + 3

        await eventually(has_looked)
        assert not lost.done()


async def test_what_cannot_be_removed_does_not_hide_why_the_replay_has_failed(
    besieged: KafkaLog, settings: Settings, sandbox: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with opened_sandbox(besieged, sandbox, settings.namespace, ["count"], keep=False):
            await besieged.create_topics([Topics(sandbox.namespace).job_state])
            raise ZeroDivisionError
    assert f"The sandbox {sandbox.namespace} is not removed: " in caplog.text


class EndsMeanwhile(KafkaLog):
    """A cluster from which another replay has removed its sandbox just after its topics were listed."""

    other = ""

    async def topic_names(self) -> set[str]:
        names = await super().topic_names()
        if self.other in names:
            await self.delete_topics([self.other])
        return names


async def test_a_sandbox_that_goes_while_others_are_removed_is_passed_over(
    log: KafkaLog, settings: Settings, sandbox: Settings
) -> None:
    other, ending = Topics(f"{settings.namespace}.replay-0").replay_marker, EndsMeanwhile(settings)
    ending.other = other.name
    try:
        async with opened_sandbox(ending, sandbox, settings.namespace, ["count"], keep=False):
            await log.create_topics([other])
            removed, spared, *_ = await clean_sandboxes(ending, settings, every=True)
            assert other.name not in [found.topic for found in (*removed, *spared)]
            assert sandbox.namespace in [found.sandbox for found in removed]
        # And the end of a replay does not read those of others.
        async with opened_sandbox(log, sandbox, settings.namespace, ["count"], keep=False):
            await log.create_topics([other])
            ending.other = ""
    finally:
        await ending.close()
        await log.delete_topics([other.name])
    assert of_namespace(await state_of(settings), sandbox.namespace) == []
