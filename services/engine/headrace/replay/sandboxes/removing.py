"""Removing a sandbox, at the end of its own replay or by who cleans up: all that its marker names, while that stands there."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Final

from headrace.core.topics import Topics
from headrace.errors import BrokerError, BrokerUnreachable, TopicMissing
from headrace.kafka.leaving import delete_groups
from headrace.models import SandboxMarker
from headrace.ports import Log
from headrace.replay.sandboxes.markers import GONE_SECONDS, SILENT_SECONDS, FoundMarker, begun_marker, find_marker, take_over
from headrace.replay_errors import SandboxLeft
from headrace.settings import Settings

_LOOK_SECONDS: Final = 0.5
_MOST_SECONDS: Final = 60.0
"""A replay that runs, and loses its sandbox, takes some ten seconds to end; until then it asks for its topics."""
_MOST_NAMED: Final = 3


class _IsAnothers(Exception):
    """The name has become another's, or nobody's, while a sandbox was removed."""

    def __init__(self, found: FoundMarker | None) -> None:
        self.found = found


async def remove_own(log: Log, settings: Settings, marker: SandboxMarker) -> None:
    """Removes a sandbox in the end, also what the broker has made again for its replay after others had removed it.

    What another replay has of that name by now is left to it. The views go all the same, unless they may be that one's.

    Raises:
        SandboxLeft: it cannot be removed; its marker is left.
    """
    try:
        await _remove(log, settings, marker, or_unmarked=True)
    except _IsAnothers as error:
        other = error.found.marker if error.found is not None else None
        if other is None or other.host != platform.node():
            await _remove_views(settings, marker)
    except (BrokerError, TopicMissing) as error:
        raise _left(marker, str(error)) from error


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
    except (BrokerError, TopicMissing) as error:
        raise _left(marker, str(error)) from error


async def remove(log: Log, settings: Settings, marker: SandboxMarker) -> None:
    """Removes all that a marker names, and the marker in the end: what breaks off in between is found again. Where others have
    removed it meanwhile, nothing more is done: what has its name then is none of it.

    Raises:
        SandboxLeft: not all of it can be removed; its marker is left.
    """
    try:
        await _remove(log, settings, marker, or_unmarked=False)
    except _IsAnothers:
        return
    except (BrokerError, TopicMissing) as error:
        raise _left(marker, str(error)) from error


async def _remove(log: Log, settings: Settings, marker: SandboxMarker, *, or_unmarked: bool) -> None:
    """Raises _IsAnothers where the marker is not this one any more: in the seconds of a step the name may change hands.

    Args:
        or_unmarked: what has no marker any more is removed, too.
    """
    await _check_ours(log, marker, or_unmarked=or_unmarked)
    await delete_groups(settings, marker.groups)
    await _delete_for_good(log, marker, or_unmarked=or_unmarked)
    await _check_ours(log, marker, or_unmarked=or_unmarked)
    await _remove_views(settings, marker)
    if (found := await _check_ours(log, marker, or_unmarked=or_unmarked)) is not None:
        await log.delete_topics([found.topic])


async def _check_ours(log: Log, marker: SandboxMarker, *, or_unmarked: bool) -> FoundMarker | None:
    topic = Topics(marker.sandbox).replay_marker.name
    found = await find_marker(log, topic)
    if or_unmarked and found is not None and found.is_empty:
        # Another replay is just beginning, or a sign of this one had the broker make it again.
        found = await begun_marker(log, topic)
        if found is not None and found.is_empty:
            with contextlib.suppress(TopicMissing):
                await take_over(log, topic)
            found = await find_marker(log, topic)
    is_unmarked = found is None or found.is_nobodys
    if not (or_unmarked if is_unmarked else found is not None and found.marker == marker):
        raise _IsAnothers(found)
    return found


async def _delete_for_good(log: Log, marker: SandboxMarker, *, or_unmarked: bool) -> None:
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
        if left:
            await _check_ours(log, marker, or_unmarked=or_unmarked)
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


async def _remove_views(settings: Settings, marker: SandboxMarker) -> None:
    await asyncio.to_thread(_remove_folder, settings.data_directory / "views" / marker.sandbox)


def _remove_folder(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
