"""Sandboxes: namespaces on the same cluster in which recorded jobs run again, and of which nothing is left afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Final

import orjson
from pydantic import TypeAdapter, ValidationError

from headrace.core.timestamps import format_timestamp
from headrace.core.topics import IN_SANDBOX_NAMES, Topics
from headrace.errors import BrokerError, ConfigurationError, TopicMissing
from headrace.kafka.leaving import groups_named
from headrace.models import SandboxMarker
from headrace.namespaces import Namespace
from headrace.ports import Log, LogWriter, NewRecord, TopicPartition
from headrace.replay.sandboxes.markers import (
    ALIVE_EVERY_SECONDS,
    ALIVE_KEY,
    GONE_SECONDS,
    MARKER_KEY,
    OVER_KEY,
    find_marker,
    made_marker,
)
from headrace.replay.sandboxes.removing import remove_own, unmark
from headrace.replay_errors import SandboxInUse, SandboxLeft, SandboxLost
from headrace.runtime import until_done, wall_clock
from headrace.sandbox_marker import has_names_of_queues
from headrace.settings import Settings

logger = logging.getLogger(__name__)

_APPEND_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.5
_MISSED_LOOKS: Final = 2


def sandbox_settings(settings: Settings, name: str, concurrency: int) -> Settings:
    """The settings of what runs in a sandbox of that name, which is `<namespace>.replay-<id>`: of another, it is the id.

    No live system can have a name of that kind: what is deleted with a sandbox is never anything that somebody means to keep.

    Raises:
        ConfigurationError: no namespace can have the name.
    """
    prefix = f"{settings.namespace}{IN_SANDBOX_NAMES}"
    asked, name = name, name if name.startswith(prefix) else f"{prefix}{name}"
    try:
        TypeAdapter(Namespace).validate_python(name)
    except ValidationError:
        raise ConfigurationError(
            f"No sandbox can be named {asked!r}: its namespace would be {name!r}, and one has at most 80 letters, digits,"
            " '.', '_' and '-'."
        ) from None
    if has_names_of_queues(name):
        raise ConfigurationError(f"No sandbox can be named {asked!r}: topics named {name}.… are queues of workers.")
    # What it runs is over before anything of it would have to be kept fit for compaction.
    # Who breaks it off waits for no attempt.
    changes = {"janitor": False, "concurrency": concurrency, "health_port": None, "grace_seconds": 0.0}
    engine = settings.engine.model_copy(update=changes)
    return settings.model_copy(update={"namespace": name, "engine": engine})


@asynccontextmanager
async def opened_sandbox(
    log: Log,
    settings: Settings,
    live: str,
    workers: Collection[str],
    *,
    keep: bool,
    on_begin: Callable[[], None] = lambda: None,
) -> AsyncIterator[asyncio.Future[None]]:
    """A sandbox for a block: nobody else has the namespace, and afterwards it is gone, unless it is to be kept.

    Whoever uses it waits for the future that it gives, too: it fails by SandboxLost when others remove the sandbox meanwhile.

    Args:
        settings: those of the sandbox.
        live: the namespace whose jobs are to run in it.
        on_begin: called when the name is free, and before anything is made.

    Raises:
        SandboxInUse: something of that name is on the cluster; nothing was changed.
        BrokerError: the brokers cannot be used. What was made is found by `clean`.
        SandboxLost: it was removed by others, whatever else that has led to.
        SandboxLeft: all is done, and the sandbox cannot be removed. Where something else has ended the block, that is raised, and
            this is logged.

    To be cancelled while it is made, or removed, does not break that off: it is raised afterwards, and nothing of it is left.
    """
    marker = made_marker(settings.namespace, live, workers, format_timestamp(wall_clock()))
    writer = log.writer()
    watch = _Watch(log, writer, marker)
    marking: asyncio.Task[None] | None = None
    alive: asyncio.Task[None] | None = None
    is_done = False
    await writer.start()
    try:
        await _check_free(log, settings, marker.sandbox)
        on_begin()
        marking = asyncio.create_task(_mark(log, writer, marker), name="sandbox marking")
        # Of an empty topic nobody knows whose it is: it gets its marker, also to be removed.
        if (cancelled := await until_done(marking)) is not None:
            raise cancelled
        marking.result()
        # Another application may have taken the name meanwhile.
        await _check_free(log, settings, marker.sandbox, own={Topics(marker.sandbox).replay_marker.name})
        alive = asyncio.create_task(watch.keep_up(), name="sandbox alive")
        yield watch.lost
        is_done = True
    except Exception as error:
        if alive is not None and not isinstance(error, SandboxLost) and await watch.looks_again():
            raise _lost(marker.sandbox) from error
        raise
    finally:
        ending = (
            _give_up(log, marker, writer, marking) if alive is None else _close(log, settings, marker, watch, alive, keep=keep)
        )
        closing = asyncio.create_task(ending, name="sandbox closing")
        cancelled = await until_done(closing)
        try:
            closing.result()
        except SandboxLeft as error:
            if is_done and cancelled is None:
                raise
            logger.error("%s", error)
        if cancelled is not None:
            raise cancelled


async def _close(
    log: Log, settings: Settings, marker: SandboxMarker, watch: _Watch, alive: asyncio.Task[None], *, keep: bool
) -> None:
    """Ends the signs of life, and removes the sandbox unless it is to be kept.

    Raises:
        SandboxLeft: it cannot be removed.
    """
    alive.cancel()
    await asyncio.gather(alive, return_exceptions=True)
    if keep and not watch.is_lost:
        await _sign(watch.writer, settings.namespace, OVER_KEY)
    # First: a client that still asks for a topic may have the broker make it again.
    await watch.writer.stop(timeout=1.0)
    if not keep or watch.is_lost:
        await remove_own(log, settings, marker)


async def _give_up(log: Log, marker: SandboxMarker, writer: LogWriter, marking: asyncio.Task[None] | None) -> None:
    """Removes what there is of a sandbox that was never opened, which is its marker: all else of that name is another's.

    Args:
        marking: has ended; None where it was never begun.

    Raises:
        SandboxLeft: it cannot be removed.
    """
    await writer.stop(timeout=1.0)
    if marking is not None and not isinstance(marking.exception(), SandboxInUse):
        await unmark(log, marker)


async def _check_free(log: Log, settings: Settings, sandbox: str, own: Collection[str] = ()) -> None:
    """Raises SandboxInUse where the cluster has anything of that namespace: all of it would be removed in the end.

    A group outlives its topics, with its offsets: it may be that of an application whose topics are named otherwise.

    Args:
        own: topics that are the sandbox's.
    """
    prefix = f"{sandbox}."
    topics = sorted(name for name in await log.topic_names() if name.startswith(prefix) and name not in own)
    groups = [] if topics else await groups_named(settings, prefix)
    if taken := topics or groups:
        kind = "topics" if topics else "consumer groups"
        raise SandboxInUse(
            f"{sandbox!r} cannot be a sandbox: the cluster has {'' if topics else 'the consumer group '}{taken[0]}"
            f"{f' and {len(taken) - 1} more {kind}' if len(taken) > 1 else ''} of that namespace. Give another name;"
            " `headrace replay clean` removes what replays have left, and says of which topics nobody knows whose they are."
        )


async def _mark(log: Log, writer: LogWriter, marker: SandboxMarker) -> None:
    topics = Topics(marker.sandbox)
    await log.create_topics([topics.replay_marker])
    record = NewRecord(MARKER_KEY, orjson.dumps(marker.to_wire()))
    place = TopicPartition(topics.replay_marker.name, 0)
    try:
        written = await writer.append(place, record, timeout=_APPEND_SECONDS)
    except (BrokerError, TopicMissing) as error:
        # Who cleans up has taken it for that of a replay which was killed.
        if await _is_known_to_be_gone(log, place.topic):
            raise _lost(marker.sandbox) from error
        raise
    if written.offset:
        found = await find_marker(log, place.topic)
        if found is None or found.is_nobodys:
            raise _lost(marker.sandbox)
        raise SandboxInUse(f"{marker.sandbox!r} cannot be a sandbox: another replay has just made it its own.")


async def _is_known_to_be_gone(log: Log, topic: str) -> bool:
    with contextlib.suppress(BrokerError):
        return topic not in await log.topic_names()
    return False


class _Watch:
    """Gives signs of life for a sandbox, and looks whether it is still there.

    Attributes:
        writer: by which it gives them.
        lost: fails by SandboxLost when it is not.
    """

    def __init__(self, log: Log, writer: LogWriter, marker: SandboxMarker) -> None:
        self._log = log
        self.writer = writer
        self._marker = marker
        self._sandbox = marker.sandbox
        self._last_sign = 0
        self._clock = asyncio.get_running_loop().time
        self._signed_at = self._clock()
        self._own = {*marker.topics, Topics(marker.sandbox).replay_marker.name}
        self._seen: set[str] = {Topics(marker.sandbox).replay_marker.name}
        self._missed = 0
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_lost(self) -> bool:
        """Whether others have removed it."""
        return self.lost.done() and not self.lost.cancelled()

    async def keep_up(self) -> None:
        """Goes on until it is lost."""
        while not await self.finds_it_lost():
            await asyncio.sleep(ALIVE_EVERY_SECONDS)
            await self._give_sign()

    async def _give_sign(self) -> None:
        offset = await _sign(self.writer, self._sandbox, ALIVE_KEY)
        if offset is None:
            return
        # Made again by the broker, the topic is not the one that it was; and behind a gap somebody else has written there.
        if offset <= self._last_sign:
            self._lose()
        # After so long a silence others may have removed it, and have written as much into one of their own.
        elif offset > self._last_sign + 1 or self._clock() - self._signed_at >= GONE_SECONDS:
            with contextlib.suppress(BrokerError, TopicMissing):
                if await self._is_anothers():
                    self._lose()
                self._last_sign, self._signed_at = offset, self._clock()
            # What could not be read is a gap for the next sign, too.
        else:
            self._last_sign, self._signed_at = offset, self._clock()

    async def _is_anothers(self) -> bool:
        """Whether the sandbox was removed meanwhile, or is being so: another replay may have the name by now."""
        found = await find_marker(self._log, Topics(self._sandbox).replay_marker.name)
        return found is None or found.marker != self._marker or found.is_removed

    async def looks_again(self) -> bool:
        """Looks as often as it takes to be sure."""
        for _ in range(_MISSED_LOOKS):
            if await self.finds_it_lost() or not self._missed:
                break
            await asyncio.sleep(_LOOK_SECONDS)
        return self.is_lost

    async def finds_it_lost(self) -> bool:
        """Looks once more; whether topics that were there are gone. What cannot be known is not so."""
        if not self.lost.done():
            with contextlib.suppress(BrokerError):
                there = self._own & set(await self._log.topic_names())
                # A broker that has just come to know of a topic may be another than the one that is asked now.
                self._missed = self._missed + 1 if self._seen - there else 0
                self._seen |= there
            if self._missed >= _MISSED_LOOKS:
                self._lose()
        return self.is_lost

    def _lose(self) -> None:
        if not self.lost.done():
            self.lost.set_exception(_lost(self._sandbox))
            self.lost.exception()  # where nobody waits for it, that is no mistake


def _lost(sandbox: str) -> SandboxLost:
    return SandboxLost(
        f"The sandbox {sandbox} was removed while its replay ran, by `headrace replay clean --all` or by hand. The replay has"
        " ended without a result; what it had made since is removed, too."
    )


async def _sign(writer: LogWriter, sandbox: str, key: bytes) -> int | None:
    """Writes a sign; its offset. None where it was not acknowledged: the next is as good, and so is silence in the end.

    Whether the topic is gone is for the watch to see: a broker that has just started may not know of it.
    """
    target = TopicPartition(Topics(sandbox).replay_marker.name, 0)
    with contextlib.suppress(BrokerError, TopicMissing):
        return (await writer.append(target, NewRecord(key, b"{}"), timeout=_APPEND_SECONDS)).offset
    return None
