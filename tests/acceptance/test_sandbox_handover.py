"""A sandbox is removed while others use its name, or something of the cluster cannot be used: nothing of theirs goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

from headrace import Client, Settings
from headrace.cli.main import application
from headrace.core.topics import Topics
from headrace.errors import BrokerError
from headrace.kafka.log import KafkaLog
from headrace.kafka.reader import KafkaReader
from headrace.kafka.writer import KafkaWriter
from headrace.models import SandboxMarker
from headrace.ports import Acknowledged, NewRecord, TopicPartition
from headrace.replay.sandboxes import markers, removing
from headrace.replay.sandboxes.cleaning import clean_sandboxes
from headrace.replay.sandboxes.markers import MARKER_KEY, OVER_KEY, find_marker, made_marker
from headrace.replay.sandboxes.removing import remove, remove_own
from headrace.replay.sandboxes.sandbox import opened_sandbox, sandbox_settings
from headrace.replay_errors import SandboxInUse, SandboxLost, SandboxUnknown
from support.engines import PATIENCE_SECONDS
from support.log import plain_topic

LOOKS = [
    *(["jobs"], ["jobs", "cancel", "a-job"], ["workers"], ["dead-letters", "list"]),
    ["memory", "show", "--user", "ada", "--conversation", "trip"],
]


@pytest.fixture
def sandbox(settings: Settings) -> Settings:
    return sandbox_settings(settings, f"{settings.namespace}.replay-1", 10)


@pytest.fixture(autouse=True)
async def nothing_stays(log: KafkaLog, settings: Settings) -> AsyncIterator[None]:
    yield
    await log.delete_topics([name for name in await log.topic_names() if name.startswith(f"{settings.namespace}.")])


def marker_of(sandbox: str, started_at: str) -> SandboxMarker:
    return made_marker(sandbox, sandbox.partition(".replay-")[0], ["count"], started_at)


async def begin(log: KafkaLog, marker: SandboxMarker, *signs: bytes) -> None:
    """A replay takes the name, has the topics that it has first, and gives these signs."""
    topics = Topics(marker.sandbox)
    await log.create_topics([topics.replay_marker, topics.job_state, topics.jobs("count")])
    writer = log.writer()
    await writer.start()
    place = TopicPartition(topics.replay_marker.name, 0)
    for record in (NewRecord(MARKER_KEY, orjson.dumps(marker.to_wire())), *(NewRecord(sign, b"{}") for sign in signs)):
        await writer.append(place, record, timeout=30)
    await writer.stop(timeout=5)


async def of_name(log: KafkaLog, name: str) -> set[str]:
    return {each for each in await log.topic_names() if each.startswith(f"{name}.")}


@pytest.mark.parametrize("step", ["delete_groups", "_remove_views"])
@pytest.mark.parametrize("who", ["the end of its replay", "the end of a lost one", "clean"])
async def test_who_takes_the_name_while_a_sandbox_is_removed_loses_nothing(
    log: KafkaLog, settings: Settings, sandbox: Settings, monkeypatch: pytest.MonkeyPatch, who: str, step: str
) -> None:
    """Each step may take seconds, in which another has removed the sandbox, too, and the name has become free."""
    own, other = (marker_of(sandbox.namespace, f"2026-01-0{day}T00:00:00.000Z") for day in (1, 2))
    if who != "the end of a lost one":
        await begin(log, own)
    done = getattr(removing, step)

    async def meanwhile(*given: Any) -> None:
        await done(*given)
        await log.delete_topics(await of_name(log, sandbox.namespace))
        await begin(log, other)

    monkeypatch.setattr(removing, step, meanwhile)
    await (remove if who == "clean" else remove_own)(log, settings, own)
    topics = Topics(sandbox.namespace)
    assert await of_name(log, sandbox.namespace) == {topics.replay_marker.name, topics.job_state.name, topics.jobs_name("count")}
    found = await find_marker(log, topics.replay_marker.name)
    assert found is not None and found.marker == other


async def test_what_the_broker_made_again_for_a_lost_replay_goes_in_its_end(
    log: KafkaLog, settings: Settings, sandbox: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the topic of its marker, in which nothing stands, or its last sign."""
    monkeypatch.setattr(markers, "BEGIN_SECONDS", 0.2)
    own = marker_of(sandbox.namespace, "2026-01-01T00:00:00.000Z")
    topic = Topics(sandbox.namespace).replay_marker.name
    await log.create_topics([plain_topic(topic), plain_topic(Topics(sandbox.namespace).job_state.name)])
    await remove_own(log, settings, own)
    assert await of_name(log, sandbox.namespace) == set()


class Unreadable(KafkaLog):
    """A cluster of which a topic cannot be read, as by what its client is allowed."""

    def __init__(self, settings: Settings, topic: str) -> None:
        super().__init__(settings)
        self._topic = topic

    def reader(self) -> KafkaReader:
        topic = self._topic

        class Refused(KafkaReader):
            async def start_offsets(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
                asked = list(partitions)
                if any(each.topic == topic for each in asked):
                    raise BrokerError("not allowed")
                return await super().start_offsets(asked)

        return Refused(self._cluster, self._administration)


@pytest.mark.parametrize("every", [False, True], ids=["those that are over", "all"])
@pytest.mark.parametrize("whose", ["its own", "anybody's"])
async def test_a_topic_that_cannot_be_read_keeps_no_other_from_being_removed(
    log: KafkaLog, settings: Settings, monkeypatch: pytest.MonkeyPatch, whose: str, every: bool
) -> None:
    """It comes before them. Where it may be of a sandbox of the namespace, that has failed, and the command says so."""
    name = f"{settings.namespace}.replay-0" if whose == "its own" else f"{settings.namespace}.0.replay-0"
    after = f"{settings.namespace}.replay-1"
    await begin(log, marker_of(name, "2026-01-01T00:00:00.000Z"), OVER_KEY)
    await begin(log, marker_of(after, "2026-01-01T00:00:00.000Z"), OVER_KEY)
    before = await of_name(log, name)
    topic = Topics(name).replay_marker.name
    monkeypatch.setattr("headrace.cli.replay_clean.KafkaLog", lambda asked: Unreadable(asked, topic))
    result = await asyncio.to_thread(cleaned_by_command, settings, *(["--all"] if every else []))
    assert f"Removed {after}." in result.stdout
    if whose == "its own":
        assert result.exit_code == 2
        assert f"Error: The sandbox {name} is not removed: {topic}, in which its marker stands, cannot be used: not allowed" in (
            result.stderr
        )
    else:
        assert result.exit_code == 0
        assert f"Left {name}: its topic {topic} cannot be read (not allowed)." in result.stdout
    assert await of_name(log, name) == before
    assert await of_name(log, after) == set()


def cleaned_by_command(settings: Settings, *options: str) -> Result:
    assert settings.bootstrap_servers is not None
    where = ("--bootstrap-servers", settings.bootstrap_servers, "--namespace", settings.namespace)
    return CliRunner().invoke(application, ["replay", "clean", *where, *options])


async def test_topics_of_a_sandbox_without_a_marker_are_told_and_left_alone(log: KafkaLog, settings: Settings) -> None:
    """As they are made by who asks for them; so why the name is refused can be found out."""
    gone, there = f"{settings.namespace}.replay-mine", f"{settings.namespace}.replay-there"
    await begin(log, marker_of(there, "2026-01-01T00:00:00.000Z"), OVER_KEY)
    left = {f"{gone}.control", f"{gone}.job-state"}
    await log.create_topics([*map(plain_topic, left), plain_topic(f"{settings.namespace}.other.control")])
    first = await asyncio.to_thread(cleaned_by_command, settings, "--json")
    assert json.loads(first.stdout)["unmarked"] == [f"{gone}.control", f"{gone}.job-state"]
    assert there in json.loads(first.stdout)["removed"]
    again = await asyncio.to_thread(cleaned_by_command, settings, "--all")
    assert (
        f"Left 2 topics without a marker, of which nobody knows whose they are: {gone}.control, {gone}.job-state." in again.stdout
    )
    assert "No replay has left a sandbox" not in again.stdout
    assert (first.exit_code, again.exit_code) == (0, 0)
    assert await of_name(log, gone) == left

    with pytest.raises(SandboxInUse, match=r"`headrace replay clean` .* says of which topics nobody knows whose they are"):
        async with opened_sandbox(log, sandbox_settings(settings, gone, 1), settings.namespace, ["count"], keep=False):
            raise AssertionError("it opened")


@pytest.mark.parametrize("command", LOOKS, ids=" ".join)
async def test_a_command_that_looks_at_a_sandbox_that_is_gone_says_so(
    log: KafkaLog, sandbox: Settings, command: list[str]
) -> None:
    assert sandbox.bootstrap_servers is not None
    where = ("--bootstrap-servers", sandbox.bootstrap_servers, "--namespace", sandbox.namespace)
    result = await asyncio.to_thread(CliRunner().invoke, application, [*command, *where])
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Error: There is no sandbox of the name {sandbox.namespace}: " in result.stderr
    assert await of_name(log, sandbox.namespace) == set()


@pytest.mark.parametrize("command", [["timeline", "a-job"], ["state", "--at", "1m"], ["replay", "job", "a-job"]], ids=" ".join)
async def test_no_command_that_looks_at_what_was_recorded_makes_anything_there(
    log: KafkaLog, sandbox: Settings, command: list[str]
) -> None:
    assert sandbox.bootstrap_servers is not None
    where = ("--bootstrap-servers", sandbox.bootstrap_servers, "--namespace", sandbox.namespace)
    result = await asyncio.to_thread(CliRunner().invoke, application, [*command, *where])
    assert result.exit_code == 2
    assert await of_name(log, sandbox.namespace) == set()


async def test_a_client_of_a_sandbox_that_is_gone_makes_nothing(log: KafkaLog, settings: Settings, sandbox: Settings) -> None:
    async with opened_sandbox(log, sandbox, settings.namespace, ["count"], keep=True):
        await log.create_topics(Topics(sandbox.namespace).of_engine(["count"], 1, 1.0))
    async with Client(sandbox) as client:
        assert (await client.list_jobs()).jobs == []
    await clean_sandboxes(log, settings)
    with pytest.raises(SandboxUnknown):
        async with Client(sandbox):
            raise AssertionError("it opened")
    assert await of_name(log, sandbox.namespace) == set()
    assert settings.namespace in sandbox.namespace


class Beginning(KafkaLog):
    """The cluster of a replay that has made its topic, and writes its marker when it may.

    Attributes:
        has_made: the topic is there.
        may_write: lets it go on.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.has_made, self.may_write = asyncio.Event(), asyncio.Event()

    def writer(self) -> KafkaWriter:
        log = self

        class Held(KafkaWriter):
            async def append(self, target: TopicPartition, record: NewRecord, *, timeout: float) -> Acknowledged:
                if record.key == MARKER_KEY:
                    log.has_made.set()
                    await log.may_write.wait()
                return await super().append(target, record, timeout=timeout)

        return Held(self._cluster, self._administration)


class Looks(KafkaLog):
    """A cluster of which is told when somebody has looked into a topic."""

    def __init__(self, settings: Settings, looked: asyncio.Event) -> None:
        super().__init__(settings)
        self._looked = looked

    def reader(self) -> KafkaReader:
        looked = self._looked

        class Telling(KafkaReader):
            async def stop(self) -> None:
                await super().stop()
                looked.set()

        return Telling(self._cluster, self._administration)


async def test_clean_all_ends_a_replay_that_is_just_beginning_in_order(
    log: KafkaLog, settings: Settings, sandbox: Settings
) -> None:
    """It waits for the marker, and then has it end as any other."""
    beginning, looked = Beginning(settings), asyncio.Event()
    cleaner = Looks(settings, looked)

    async def run() -> None:
        async with opened_sandbox(beginning, sandbox, settings.namespace, ["count"], keep=False) as lost:
            await lost

    replay = asyncio.create_task(run())
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await beginning.has_made.wait()
            cleaning = asyncio.create_task(clean_sandboxes(cleaner, settings, every=True))
            await looked.wait()
            beginning.may_write.set()
            cleaned = await cleaning
            assert sandbox.namespace in [found.sandbox for found in cleaned.removed if found.is_empty]
            with pytest.raises(SandboxLost):
                await replay
    finally:
        await beginning.close()
        await cleaner.close()
    assert await of_name(log, sandbox.namespace) == set()


@pytest.mark.parametrize("what", ["taken over", "deleted"])
async def test_a_replay_that_begins_too_late_for_clean_all_ends_in_order(
    log: KafkaLog, settings: Settings, sandbox: Settings, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Its topic was taken for that of one which was killed. Where the broker makes it again, the replay just goes on."""
    monkeypatch.setattr(markers, "BEGIN_SECONDS", 0.2)
    beginning = Beginning(settings)

    async def run() -> None:
        async with opened_sandbox(beginning, sandbox, settings.namespace, ["count"], keep=False):
            pass

    replay = asyncio.create_task(run())
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await beginning.has_made.wait()
            if what == "taken over":
                assert await markers.take_over(log, Topics(sandbox.namespace).replay_marker.name)
            else:
                cleaned = await clean_sandboxes(log, settings, every=True)
                assert sandbox.namespace in [found.sandbox for found in cleaned.removed]
            beginning.may_write.set()
            [ended] = await asyncio.gather(replay, return_exceptions=True)
    finally:
        await beginning.close()
    if what == "taken over":
        assert isinstance(ended, SandboxLost)
    else:
        assert ended is None or isinstance(ended, SandboxLost)
        assert await of_name(log, sandbox.namespace) == set()
