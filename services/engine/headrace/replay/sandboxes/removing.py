"""Removing what replays have left in a cluster: a sandbox at the end of its own replay, and those of replays that are no more."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from headrace.core.topics import IN_SANDBOX_NAMES, Topics
from headrace.errors import BrokerError, BrokerUnreachable, TopicMissing
from headrace.kafka.leaving import delete_groups
from headrace.models import SandboxMarker
from headrace.ports import Log, NewRecord, TopicPartition
from headrace.replay.sandboxes.markers import (
    GONE_SECONDS,
    REMOVED_KEY,
    SILENT_SECONDS,
    FoundMarker,
    find_marker,
    marker_topics,
    silent_ones,
)
from headrace.replay_errors import SandboxLeft
from headrace.settings import Settings

logger = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 0.5
_MOST_SECONDS: Final = 60.0
"""A replay that runs, and loses its sandbox, takes some ten seconds to end; until then it asks for its topics."""
_TELL_SECONDS: Final = 10.0
_MOST_NAMED: Final = 3


class Cleaned(NamedTuple):
    """What came of the sandboxes that were found.

    Attributes:
        spared: what was not to be removed.
        failed: what was, and could not be, with the reason; its marker is still there.
    """

    removed: list[FoundMarker]
    spared: list[FoundMarker]
    failed: list[tuple[FoundMarker, SandboxLeft]]


async def remove_own(log: Log, settings: Settings, marker: SandboxMarker) -> None:
    """Removes a sandbox in the end, unless it was removed before and the name is another replay's by now.

    Raises:
        SandboxLeft: it cannot be removed; its marker is left.
    """
    try:
        found = await find_marker(log, Topics(marker.sandbox).replay_marker.name)
    except BrokerError as error:
        raise _left(marker, str(error)) from error
    if found is None or found.marker in (None, marker):
        await remove(log, settings, marker)


async def unmark(log: Log, marker: SandboxMarker) -> None:
    """Removes a marker, and nothing that it names, unless the topic is another's.

    Raises:
        SandboxLeft: it cannot be removed.
    """
    topic = Topics(marker.sandbox).replay_marker.name
    try:
        found = await find_marker(log, topic)
        if found is not None and found.marker == marker:
            await log.delete_topics([topic])
    except BrokerError as error:
        raise _left(marker, str(error)) from error


async def _tell_its_replay(log: Log, marker_topic: str) -> None:
    """Has a replay that runs end by itself. Else it may go on for half a minute: its engine has topics made again that it uses,
    and so it may not notice that they are gone.
    """
    writer = log.writer()
    try:
        await writer.start()
        await writer.append(TopicPartition(marker_topic, 0), NewRecord(REMOVED_KEY, b"{}"), timeout=_TELL_SECONDS)
    except (BrokerError, TopicMissing) as error:
        logger.debug("nobody is told of the end of %s: %s", marker_topic, error)
    finally:
        await writer.stop(timeout=1.0)


async def remove(log: Log, settings: Settings, marker: SandboxMarker) -> None:
    """Removes all that a marker names, and the marker in the end: what breaks off in between is found again.

    Raises:
        SandboxLeft: not all of it can be removed; its marker is left.
    """
    try:
        await delete_groups(settings, marker.groups)
        await _delete_for_good(log, marker)
        await asyncio.to_thread(_remove_views, settings.data_directory / "views" / marker.sandbox)
        await log.delete_topics([Topics(marker.sandbox).replay_marker.name])
    except BrokerError as error:
        raise _left(marker, str(error)) from error


async def _delete_for_good(log: Log, marker: SandboxMarker) -> None:
    """Deletes topics until they stay away: a client that is just going may ask for one, and has the broker make it again."""
    gone, loop, reason = 0, asyncio.get_running_loop(), ""
    deadline = loop.time() + _MOST_SECONDS
    while True:
        left = await _there(log, marker.topics)
        gone = 0 if left else gone + 1
        if gone > 1:
            return
        if left and loop.time() > deadline:
            raise _left(
                marker, reason or f"whenever {_named(left)} is deleted, it is made again by somebody who still asks for it."
            )
        try:
            await log.delete_topics(left)
        except BrokerUnreachable:
            raise
        except BrokerError as error:  # as of one that is made again before its absence was seen
            reason = str(error)
        else:
            reason = ""
        await asyncio.sleep(_LOOK_SECONDS)


async def _there(log: Log, topics: Collection[str]) -> list[str]:
    there = await log.topic_names()
    return [name for name in topics if name in there]


def _named(topics: Collection[str]) -> str:
    more = len(topics) - _MOST_NAMED
    return ", ".join(list(topics)[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _left(marker: SandboxMarker, reason: str) -> SandboxLeft:
    return SandboxLeft(
        f"The sandbox {marker.sandbox} is not removed: {reason} What is left of it is found and removed by"
        f" `headrace replay clean --namespace {marker.namespace}` when nobody uses it any more, which takes {GONE_SECONDS:g} s on"
        f" this machine, and {SILENT_SECONDS:g} s on others."
    )


def _remove_views(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


async def _was_just_begun(log: Log, settings: Settings, found: FoundMarker) -> bool:
    """Whether a replay of the namespace has made this topic, and nothing else."""
    if not found.is_empty or not found.sandbox.startswith(f"{settings.namespace}{IN_SANDBOX_NAMES}"):
        return False
    own = [name for name in await log.topic_names() if name.startswith(f"{found.sandbox}.")]
    return own == [found.topic] and await log.partition_count(found.topic) == 1


def _is_of(found: FoundMarker, settings: Settings) -> bool:
    return found.marker is not None and found.marker.namespace == settings.namespace


async def _silent_ones(log: Log, settings: Settings) -> Mapping[str, FoundMarker]:
    """The sandboxes of the namespace whose replays are no more and have not said so, by topic."""
    found = [await find_marker(log, topic) for topic in await marker_topics(log)]
    return await silent_ones(log, [each for each in found if each is not None and _is_of(each, settings) and not each.has_ended])


async def clean_sandboxes(log: Log, settings: Settings, *, every: bool = False) -> Cleaned:
    """Removes the sandboxes that replays of a namespace have left: those that were kept, and those that give no sign while this
    looks on, for a minute, or for 20 s where their process is gone. It takes that long where there is one that may run. A replay
    whose process is suspended, or blocked, for a minute gives none, and ends by SandboxLost when it goes on.

    Nothing is touched that no marker names, and no sandbox of another namespace's jobs. A topic in which no marker stands is
    spared, also an empty one: its replay may just begin, or it may be anybody's.

    Args:
        settings: name the namespace.
        every: remove those, too, whose replay gives signs; and the empty topic of one that was killed before it wrote its
            marker, where it has the name that replays of the namespace give, and nothing else is of that sandbox.

    Raises:
        BrokerError: the brokers cannot be used.
    """
    cleaned = Cleaned([], [], [])
    silent = {} if every else await _silent_ones(log, settings)
    # One after another: others end meanwhile, and remove theirs.
    for topic in await marker_topics(log):
        found = await find_marker(log, topic)
        if found is None:
            continue
        if every and await _was_just_begun(log, settings, found):
            await log.delete_topics([topic])
            cleaned.removed.append(found)
            continue
        # One that was silent, and is no more, was only held up.
        is_over = found.has_ended or silent.get(topic) == found
        if found.marker is None or not _is_of(found, settings) or not (every or is_over):
            cleaned.spared.append(found)
            continue
        try:
            if not is_over:
                await _tell_its_replay(log, found.topic)
            await remove(log, settings, found.marker)
        except SandboxLeft as error:
            cleaned.failed.append((found, error))
        else:
            cleaned.removed.append(found)
    return cleaned
