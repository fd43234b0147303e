"""Sandboxes on the real broker: recorded jobs run in one, nothing is left of it, and `clean` finds what a dead one has left."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from headrace import Client, Settings
from headrace.core.topics import Topics
from headrace.errors import BrokerUnreachable, ConfigurationError, TopicMissing
from headrace.kafka.log import KafkaLog
from headrace.kafka.writer import KafkaWriter
from headrace.models import SandboxMarker
from headrace.ports import Acknowledged, NewRecord, TopicPartition
from headrace.replay.history import RecordedJob
from headrace.replay.sandboxes.cleaning import clean_sandboxes
from headrace.replay.sandboxes.markers import ALIVE_KEY, MARKER_KEY, find_marker, made_marker
from headrace.replay.sandboxes.sandbox import opened_sandbox, sandbox_settings
from headrace.replay.sandboxes.sandboxed import SandboxRun, check_pacing
from headrace.replay.streams.pacing import Order, Pacing
from headrace.replay_errors import SandboxLost
from support.clusters import state_of
from support.engines import PATIENCE_SECONDS, eventually
from support.recorded import Compared, Today, recorded_job
from support.sandboxes import Count, odd_fails, of_namespace, replay_of


@pytest.fixture
def sandbox(settings: Settings) -> Settings:
    return sandbox_settings(settings, f"{settings.namespace}.replay-1", 10)


async def test_jobs_run_in_a_sandbox_and_nothing_is_left_of_it(log: KafkaLog, settings: Settings, sandbox: Settings) -> None:
    today = Today(odd_fails)
    replay = replay_of(200, today)
    before = await state_of(settings)
    async with opened_sandbox(log, sandbox, settings.namespace, ["count"], keep=False):
        summary = await SandboxRun(log, sandbox, {"count": Count()}, replay).run()
        async with Client(sandbox) as client:
            jobs = [await client.get_job(recorded_job(number).id) for number in (4, 5)]
        inside = of_namespace(await state_of(settings), sandbox.namespace)

    assert [job and (job.status, job.result, job.error and job.error.type) for job in jobs] == [
        ("completed", 4, None),
        ("failed", None, "ValueError"),
    ]
    assert dict(summary.counts) == {"same": 101, "newly-failing": 100}
    # Those of a key came one after another, in the order of the log.
    odd = [number for number in today.begun if number % 2]
    assert all([n for n in odd if n % 3 == key] == sorted(n for n in odd if n % 3 == key) for key in range(3))
    assert {f"{sandbox.namespace}.jobs.count", f"{sandbox.namespace}.count", f"{sandbox.namespace}.replay.marker"} <= set(inside)
    assert await state_of(settings) == before
    assert not (settings.data_directory / "views" / sandbox.namespace).exists()


async def test_jobs_that_are_cancelled_or_held_up_in_a_sandbox_do_not_hold_up_its_replay(
    log: KafkaLog, settings: Settings, sandbox: Settings
) -> None:
    """Whoever looks at the jobs of a sandbox can cancel them there, and pause their worker."""
    today = Today(odd_fails, gate=asyncio.Event())
    replay = replay_of(20, today)

    async def stand_in_the_way() -> None:
        async with Client(sandbox) as client:

            async def all_places_are_taken() -> bool:
                return len((await client.list_jobs(status="running")).jobs) == len(today.begun) == 10

            await eventually(all_places_are_taken)
            await client.pause_worker("count")
            # Not the one that was accepted twice: its second run goes to its end, too.
            for number in sorted({*today.begun} - {0})[:2]:
                # Its engine has heard of the pause, too, when it has stopped these: both stand in one partition.
                job = await client.cancel_job(recorded_job(number).id, wait=PATIENCE_SECONDS / 2)
                assert job.status == "cancelled"
        assert today.gate is not None
        today.gate.set()

    async with asyncio.timeout(PATIENCE_SECONDS):
        async with opened_sandbox(log, sandbox, settings.namespace, ["count"], keep=False):
            summary, _ = await asyncio.gather(SandboxRun(log, sandbox, {"count": Count()}, replay).run(), stand_in_the_way())
    assert {each.what: each.count for each in summary.worst("not-comparable")} == {
        "its worker is paused in the sandbox": 10,
        "cancelled in the sandbox": 2,
    }
    # Eight went on to their ends, and one that was accepted twice ran a second time beside the sandbox's engine.
    assert (summary.jobs, summary.counts["same"] + summary.counts["newly-failing"]) == (21, 9)
    assert of_namespace(await state_of(settings), sandbox.namespace) == []


@pytest.mark.parametrize("keep", [False, True], ids=["removed", "kept"])
@pytest.mark.parametrize("how", ["all", "the marker alone"])
async def test_a_replay_whose_sandbox_is_removed_ends_and_leaves_nothing(
    log: KafkaLog, settings: Settings, sandbox: Settings, how: str, keep: bool
) -> None:
    """Its engine asks for its topics until it has ended, and the broker makes them again."""
    today = Today(odd_fails, gate=asyncio.Event())

    async def run() -> None:
        async with opened_sandbox(log, sandbox, settings.namespace, ["count"], keep=keep) as lost:
            await SandboxRun(log, sandbox, {"count": Count()}, replay_of(20, today)).run(lost)

    task = asyncio.create_task(run())

    async def begun() -> bool:
        return bool(today.begun)

    await eventually(begun)
    other = KafkaLog(settings)
    try:
        if how == "all":
            removed, _, failed, _ = await clean_sandboxes(other, settings, every=True)
            assert [str(error) for _, error in failed] == []
            assert sandbox.namespace in [found.sandbox for found in removed]
        else:
            await other.delete_topics([Topics(sandbox.namespace).replay_marker.name])
        async with asyncio.timeout(PATIENCE_SECONDS):
            with pytest.raises(SandboxLost, match=rf"{sandbox.namespace} was removed while its replay ran"):
                await task
    finally:
        await other.close()
    assert of_namespace(await state_of(settings), sandbox.namespace) == []


async def test_who_was_cleaned_away_leaves_the_sandbox_of_another_alone(
    log: KafkaLog, settings: Settings, sandbox: Settings
) -> None:
    """The name is free again, and another replay has taken it, before the first one has looked."""
    topics = Topics(sandbox.namespace)
    with pytest.raises((BrokerUnreachable, SandboxLost)):  # or it has just looked
        async with opened_sandbox(log, sandbox, settings.namespace, ["count"], keep=False):
            await clean_sandboxes(log, settings, every=True)
            await log.create_topics([topics.replay_marker, topics.job_state])
            writer = log.writer()
            await writer.start()
            marker = made_marker(sandbox.namespace, settings.namespace, ["count"], "2026-01-01T00:00:00.000Z")
            place = TopicPartition(topics.replay_marker.name, 0)
            await writer.append(place, NewRecord(MARKER_KEY, orjson.dumps(marker.to_wire())), timeout=30)
            await writer.stop(timeout=5)
            raise BrokerUnreachable("as it is when topics are gone")
    names = {topics.replay_marker.name, topics.job_state.name}
    assert names <= await log.topic_names()
    await log.delete_topics(names)


class KnowsNoTopic(KafkaWriter):
    """The writer of a client whose broker says that there is no marker any more, when a sign of life is to be written."""

    refused = asyncio.Event()

    async def append(self, target: TopicPartition, record: NewRecord, *, timeout: float) -> Acknowledged:
        if record.key == ALIVE_KEY:
            self.refused.set()
            raise TopicMissing(f"The topic {target.topic} does not exist.")
        return await super().append(target, record, timeout=timeout)


class WithoutTopic(KafkaLog):
    def writer(self) -> KafkaWriter:
        return KnowsNoTopic(self._cluster, self._administration)


async def test_who_cannot_give_a_sign_of_life_still_looks_whether_the_sandbox_is_there(
    log: KafkaLog, settings: Settings, sandbox: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.replay.sandboxes.sandbox.ALIVE_EVERY_SECONDS", 0.05)
    client = WithoutTopic(settings)
    try:
        with pytest.raises(SandboxLost):
            async with opened_sandbox(client, sandbox, settings.namespace, ["count"], keep=False) as lost, asyncio.timeout(20):
                await KnowsNoTopic.refused.wait()
                assert not lost.done()
                await log.delete_topics([Topics(sandbox.namespace).replay_marker.name])
                await lost
    finally:
        await client.close()
    assert of_namespace(await state_of(settings), sandbox.namespace) == []


async def test_a_sandbox_gives_signs_of_life(
    log: KafkaLog, settings: Settings, sandbox: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.replay.sandboxes.sandbox.ALIVE_EVERY_SECONDS", 0.05)
    topic = Topics(sandbox.namespace).replay_marker.name
    async with opened_sandbox(log, sandbox, settings.namespace, ["count"], keep=False):

        async def signs() -> bool:
            return (await state_of(sandbox)).ends[topic][0] > 3

        await eventually(signs)
        found = await find_marker(log, topic)
    assert found is not None and found.marker is not None
    assert (found.end > 3, found.has_ended) == (True, False)


async def test_what_breaks_off_the_replay_removes_the_sandbox(log: KafkaLog, settings: Settings, sandbox: Settings) -> None:
    today = Today(odd_fails, gate=asyncio.Event())
    replay = replay_of(20, today)

    async def run() -> None:
        async with opened_sandbox(log, sandbox, settings.namespace, ["count"], keep=False):
            await SandboxRun(log, sandbox, {"count": Count()}, replay).run()

    task = asyncio.create_task(run())

    async def begun() -> bool:
        return bool(today.begun)

    await eventually(begun)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert of_namespace(await state_of(settings), sandbox.namespace) == []


@dataclass
class Unreadable(Today):
    """What was recorded of one job cannot be read."""

    async def rerun(self, job: RecordedJob) -> Compared:
        if job.offset == 7:
            raise BrokerUnreachable("the recordings cannot be read")
        return await super().rerun(job)


async def test_an_error_outside_of_an_attempt_ends_the_replay(log: KafkaLog, settings: Settings, sandbox: Settings) -> None:
    replay = replay_of(20, Unreadable(odd_fails))
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(BrokerUnreachable, match="the recordings cannot be read"):
            async with opened_sandbox(log, sandbox, settings.namespace, ["count"], keep=False):
                await SandboxRun(log, sandbox, {"count": Count()}, replay).run()
    assert of_namespace(await state_of(settings), sandbox.namespace) == []


def test_an_engine_knows_no_order_over_all_keys() -> None:
    with pytest.raises(ConfigurationError, match="leave out --order log"):
        check_pacing(Pacing(order=Order.LOG))
    check_pacing(Pacing(order=Order.KEY))


def test_a_marker_names_nothing_of_others(tmp_path: Path) -> None:
    wire = made_marker("a.replay-1", "a", ["count"], "2026-01-01T00:00:00.000Z").to_wire()
    assert SandboxMarker.model_validate(wire).topics == wire["topics"]
    for name, value in (("topics", ["a.jobs.count"]), ("groups", ["a.count"]), ("sandbox", "..")):
        with pytest.raises(ValueError, match=r"marker names|String should match"):
            SandboxMarker.model_validate({**wire, name: value})
    with pytest.raises(ValueError, match="named like queues"):
        made_marker("a.replay-1.jobs", "a", [], "2026-01-01T00:00:00.000Z")
