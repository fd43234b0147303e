"""Cleaning up: the sandboxes of replays that are no more are removed, and what is left alone is told."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from typing import NamedTuple

from headrace.core.topics import IN_SANDBOX_NAMES, REPLAY_MARKER_SUFFIX
from headrace.errors import BrokerError, TopicMissing
from headrace.ports import Log
from headrace.replay.sandboxes.markers import (
    FoundMarker,
    begun_marker,
    find_marker,
    look_at,
    marker_topics,
    silent_ones,
    take_over,
    tell_its_replay,
)
from headrace.replay.sandboxes.removing import remove
from headrace.replay_errors import SandboxLeft
from headrace.settings import Settings


class Cleaned(NamedTuple):
    """What came of the sandboxes that were found.

    Attributes:
        spared: what was not to be removed.
        failed: what was, or may have been, and could not be, with the reason; its marker is still there.
        unmarked: topics that are named like those of the namespace's sandboxes, and of which no marker is there. They were not
            touched: whose they are nobody knows.
    """

    removed: list[FoundMarker]
    spared: list[FoundMarker]
    failed: list[tuple[FoundMarker, SandboxLeft]]
    unmarked: list[str]


async def clean_sandboxes(log: Log, settings: Settings, *, every: bool = False) -> Cleaned:
    """Removes the sandboxes that replays of a namespace have left: those that were kept, and those that give no sign while this
    looks on, for a minute, or for 20 s where their process is gone. It takes that long where there is one that may run. A replay
    whose process is suspended, or blocked, for a minute gives none, and ends by SandboxLost when it goes on.

    Nothing is touched that no marker names, and no sandbox of another namespace's jobs. A topic in which no marker stands is
    spared, also an empty one: its replay may just begin, or it may be anybody's. What cannot be read, or removed, ends nothing:
    it is told.

    Args:
        settings: name the namespace.
        every: remove those, too, whose replay gives signs; and the empty topic of one that was killed before it wrote its
            marker, where it has the name that replays of the namespace give, nothing else is of that sandbox, and it stays empty
            while this looks on, for 5 s.

    Raises:
        BrokerError: the brokers do not tell which topics there are; nothing was changed.
    """
    cleaned = Cleaned([], [], [], [])
    silent = {} if every else await _silent_ones(log, settings)
    names = await log.topic_names()
    # One after another: others end meanwhile, and remove theirs.
    for topic in marker_topics(names):
        found = silent[topic] if topic in silent and silent[topic].unreadable else await look_at(log, topic)
        if found is None:
            continue
        try:
            removed = await _removed(log, settings, found, every=every, was_silent=silent.get(topic) == found)
        except SandboxLeft as error:
            cleaned.failed.append((found, error))
        else:
            (cleaned.removed if removed else cleaned.spared).append(found)
    with contextlib.suppress(BrokerError):
        names = await log.topic_names()
    cleaned.unmarked.extend(_unmarked(names, settings))
    return cleaned


async def _silent_ones(log: Log, settings: Settings) -> Mapping[str, FoundMarker]:
    """The sandboxes of the namespace whose replays are no more and have not said so, by topic."""
    found = [await look_at(log, topic) for topic in marker_topics(await log.topic_names())]
    return await silent_ones(log, [each for each in found if each is not None and _is_of(each, settings) and not each.has_ended])


async def _removed(log: Log, settings: Settings, found: FoundMarker, *, every: bool, was_silent: bool) -> bool:
    """Removes a sandbox if it is to be; False where it is spared.

    Raises:
        SandboxLeft: it cannot be, or nobody knows whether it is to be.
    """
    if found.unreadable and _has_name_of(found, settings):
        raise _unread(found, found.unreadable)
    if every and found.is_empty:
        try:
            return await _removed_as_empty(log, settings, found)
        except (BrokerError, TopicMissing) as error:
            raise _unread(found, str(error)) from error
    # One that was silent, and is no more, was only held up.
    is_over = found.has_ended or was_silent
    if found.marker is None or not _is_of(found, settings) or not (every or is_over):
        return False
    if not is_over:
        await tell_its_replay(log, found.topic)
    await remove(log, settings, found.marker)
    return True


async def _removed_as_empty(log: Log, settings: Settings, found: FoundMarker) -> bool:
    """The same of a topic in which nothing stood: its replay may have been killed, or be about to write its marker."""
    now: FoundMarker | None = found
    if await _is_alone(log, settings, found):
        now = await begun_marker(log, found.topic)
    if now is not None and now.is_empty:
        if not await _is_alone(log, settings, found):
            return False
        if await take_over(log, found.topic):
            await log.delete_topics([found.topic])
            return True
        now = await find_marker(log, found.topic)
    return now is None or await _removed(log, settings, now, every=True, was_silent=False)


async def _is_alone(log: Log, settings: Settings, found: FoundMarker) -> bool:
    """Whether a replay of the namespace has made this topic, and nothing else."""
    if not _has_name_of(found, settings):
        return False
    own = [name for name in await log.topic_names() if name.startswith(f"{found.sandbox}.")]
    return own == [found.topic] and await log.partition_count(found.topic) == 1


def _has_name_of(found: FoundMarker, settings: Settings) -> bool:
    """Whether it has the name of a sandbox of the namespace. What stands in any other is no marker of one."""
    return found.sandbox.startswith(f"{settings.namespace}{IN_SANDBOX_NAMES}")


def _is_of(found: FoundMarker, settings: Settings) -> bool:
    return found.marker is not None and found.marker.namespace == settings.namespace


def _unmarked(names: Collection[str], settings: Settings) -> list[str]:
    marked = tuple(f"{topic.removesuffix(REPLAY_MARKER_SUFFIX)}." for topic in marker_topics(names))
    prefix = f"{settings.namespace}{IN_SANDBOX_NAMES}"
    return sorted(name for name in names if name.startswith(prefix) and not name.startswith(marked))


def _unread(found: FoundMarker, reason: str) -> SandboxLeft:
    return SandboxLeft(
        f"The sandbox {found.sandbox} is not removed: {found.topic}, in which its marker stands, cannot be used: {reason} Try"
        " again when that is mended."
    )
