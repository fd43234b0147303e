"""The marker of a sandbox: by it alone is known what belongs to the sandbox of a replay, and whether that replay still runs.

It is the first record of a topic of the sandbox that is made before all others and deleted after them. The records behind it are
signs of life, and the last says that a sandbox was kept, or that others have begun to remove it. Whatever a marker does not name
is none of the sandbox's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from headrace.core.topics import REPLAY_MARKER_SUFFIX, Topics
from headrace.errors import BrokerError, TopicMissing
from headrace.models import SandboxMarker
from headrace.ports import Log, NewRecord, Record, TopicPartition
from headrace.reading import records_between

logger = logging.getLogger(__name__)

MARKER_KEY: Final = b"marker"
ALIVE_KEY: Final = b"alive"
OVER_KEY: Final = b"over"
REMOVED_KEY: Final = b"removed"
"""What is deleted is made again for as long as its replay asks for it: that hears of its end by this."""
_SIGNS: Final = frozenset({ALIVE_KEY, OVER_KEY, REMOVED_KEY})
ALIVE_EVERY_SECONDS: Final = 2.0
GONE_SECONDS: Final = 20.0
"""So long is a replay silent whose process is gone. That one is not found says little alone: containers may share a host's name,
and none of them sees the processes of another.
"""
SILENT_SECONDS: Final = 60.0
"""A replay that gives no sign of life while somebody looks on for so long is over, wherever it ran."""
BEGIN_SECONDS: Final = 5.0
"""Within so much time a replay that has made its topic writes its marker there."""
_LOOK_SECONDS: Final = 1.0
_APPEND_SECONDS: Final = 10.0
_LAST_RECORDS: Final = 10


def made_marker(sandbox: str, namespace: str, workers: Collection[str], started_at: str) -> SandboxMarker:
    """The marker of a sandbox that this process makes."""
    topics = Topics(sandbox)
    return SandboxMarker.model_validate(
        {
            "sandbox": sandbox,
            "namespace": namespace,
            "host": platform.node(),
            "processId": os.getpid(),
            "startedAt": started_at,
            "topics": _topics_of(topics, workers),
            "groups": [topics.janitors, topics.tool_call_group(), *(topics.group(worker) for worker in workers)],
        }
    )


def _topics_of(topics: Topics, workers: Collection[str]) -> list[str]:
    """All that an engine with these workers makes, and what others make who look at it."""
    shared = (
        topics.workers,
        topics.control,
        topics.job_state,
        topics.memory,
        topics.dead_letters,
        topics.ended_keys(1),
        topics.recordings,
    )
    of_gateways = (topics.api_keys, topics.audit(1), topics.tool_calls(), topics.tool_results())
    return [each.name for each in (*shared, *of_gateways)] + [topics.jobs_name(worker) for worker in workers]


@dataclass(frozen=True, slots=True)
class FoundMarker:
    """A topic that is named like a marker's.

    Attributes:
        marker: None where its first record is no marker, or there is none.
        is_empty: nothing has ever stood in it: it is somebody else's, or its replay was about to write the marker.
        is_nobodys: it begins with a sign, and so no replay can make it its own any more: the broker has made it again for one
            whose sandbox was removed, or somebody has taken it over, to remove it.
        unreadable: why it could not be read; empty where it could.
        end: the offset behind the last sign of life.
        has_ended: its replay has said that it is over, and that the sandbox is kept.
        is_removed: somebody has begun to remove it.
    """

    topic: str
    marker: SandboxMarker | None
    is_empty: bool = False
    is_nobodys: bool = False
    unreadable: str = ""
    end: int = 0
    has_ended: bool = False
    is_removed: bool = False

    @property
    def sandbox(self) -> str:
        """The name of the sandbox."""
        return self.topic.removesuffix(REPLAY_MARKER_SUFFIX)

    @property
    def is_gone(self) -> bool:
        """Whether its process was one of a machine with the name of this one, and is none of this machine's any more."""
        return self.marker is not None and self.marker.host == platform.node() and not _exists(self.marker.process_id)

    @property
    def silent_seconds(self) -> float:
        """For how long its replay gives no sign if it is no more: less where its process is gone from this machine."""
        return GONE_SECONDS if self.is_gone else SILENT_SECONDS


def _exists(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def marker_topics(names: Collection[str]) -> list[str]:
    """Those of these topics that are named like a marker's."""
    return sorted(name for name in names if name.endswith(REPLAY_MARKER_SUFFIX))


async def find_marker(log: Log, topic: str) -> FoundMarker | None:
    """What stands in a topic that is named like a marker's; None where it is gone meanwhile, and so nobody's.

    Raises:
        BrokerError: the brokers cannot be used.
    """
    try:
        records, end = await _read(log, TopicPartition(topic, 0))
        return _found(topic, records, end) if end else FoundMarker(topic, None, is_empty=True)
    except (BrokerError, TopicMissing):
        if topic in await log.topic_names():
            raise
        return None


async def look_at(log: Log, topic: str) -> FoundMarker | None:
    """As `find_marker`; what cannot be read is told."""
    try:
        return await find_marker(log, topic)
    except (BrokerError, TopicMissing) as error:
        return FoundMarker(topic, None, unreadable=str(error))


async def begun_marker(log: Log, topic: str) -> FoundMarker | None:
    """As `find_marker`, for a topic that was empty: where a replay is just beginning, it waits for its marker.

    Raises:
        BrokerError: the brokers cannot be used.
    """
    clock = asyncio.get_running_loop().time
    begun = clock()
    while True:
        found = await find_marker(log, topic)
        if found is None or not found.is_empty or clock() - begun >= BEGIN_SECONDS:
            return found
        await asyncio.sleep(min(_LOOK_SECONDS, BEGIN_SECONDS))


async def take_over(log: Log, topic: str) -> bool:
    """Writes a sign into an empty topic; whether that stands first. Then no replay can make it its own any more, and it can be
    deleted. Else a replay has begun there meanwhile, which takes no harm by a sign.

    Raises:
        BrokerError: the brokers cannot be used.
        TopicMissing: it is gone.
    """
    return await _written(log, topic, ALIVE_KEY) == 0


async def tell_its_replay(log: Log, topic: str) -> None:
    """Has a replay that runs end by itself. Else it may go on for half a minute: its engine has topics made again that it uses,
    and so it may not notice that they are gone.
    """
    try:
        await _written(log, topic, REMOVED_KEY)
    except (BrokerError, TopicMissing) as error:
        logger.debug("nobody is told of the end of %s: %s", topic, error)


async def _written(log: Log, topic: str, key: bytes) -> int:
    writer = log.writer()
    try:
        await writer.start()
        return (await writer.append(TopicPartition(topic, 0), NewRecord(key, b"{}"), timeout=_APPEND_SECONDS)).offset
    finally:
        await writer.stop(timeout=1.0)


def _found(topic: str, records: Sequence[Record], end: int) -> FoundMarker:
    if not records:
        return FoundMarker(topic, None)
    marker = marker_in(records[0], Topics(topic.removesuffix(REPLAY_MARKER_SUFFIX)))
    if marker is None:
        return FoundMarker(topic, None, is_nobodys=records[0].offset == 0 and records[0].key in _SIGNS)
    keys = {each.key for each in records}
    has_ended, is_removed = OVER_KEY in keys, REMOVED_KEY in keys
    return FoundMarker(topic, marker, end=end, has_ended=has_ended, is_removed=is_removed)


def marker_in(first: Record, topics: Topics) -> SandboxMarker | None:
    """The marker that the first record of a namespace's `replay.marker` is; None where it is none."""
    try:
        marker = SandboxMarker.model_validate_json(first.value or b"")
    except ValidationError:
        return None
    # Whoever copied one elsewhere has made no sandbox by that.
    own = first.offset == 0 and first.key == MARKER_KEY and marker.sandbox == topics.namespace
    return marker if own else None


async def silent_ones(log: Log, found: Collection[FoundMarker]) -> Mapping[str, FoundMarker]:
    """Those of them that give no sign while this looks on, by topic; it takes as long as they may be silent.

    No time that is written anywhere counts: the brokers' clocks, a replay's and this one may differ by any amount. What is told
    at last, as that a replay is over, is a sign, too.

    Those that cannot be read at last are among them, as `unreadable`.
    """
    clock = asyncio.get_running_loop().time
    begun, waited_for, silent = clock(), {each.topic: each for each in found}, {}
    while waited_for:
        await asyncio.sleep(_LOOK_SECONDS)
        passed = clock() - begun
        for topic, before in list(waited_for.items()):
            now = await look_at(log, topic)
            says_nothing = now == before or (now is not None and bool(now.unreadable))
            if says_nothing and passed < before.silent_seconds:
                continue
            del waited_for[topic]
            if says_nothing and now is not None:
                silent[topic] = now
    return silent


async def _read(log: Log, partition: TopicPartition) -> tuple[list[Record], int]:
    """The first record and the last ones, and the end: whatever others may have written there, no more of it is held.

    Raises:
        TopicMissing: there is no such topic.
    """
    records: list[Record] = []
    reader = log.reader()
    await reader.start()
    try:
        # As late as can be: asked for what is gone, a broker would make it again.
        if partition.topic not in await log.topic_names():
            raise TopicMissing(f"The topic {partition.topic} does not exist.")
        start, end = (await reader.start_offsets([partition]))[partition], (await reader.end_offsets([partition]))[partition]
        first = min(start + 1, end)
        for bounds in ((start, first), (max(first, end - _LAST_RECORDS), end)):
            if bounds[0] < bounds[1]:
                records += [record async for record in records_between(reader, {partition: bounds})]
    finally:
        await reader.stop()
    return records, end
