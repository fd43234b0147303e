"""Tells the group what has ended, and learns by its answers whether this member still belongs to it (rule H4)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

from headrace.core.checkpoint import format_pointer
from headrace.engine.holdings import Holdings
from headrace.engine.partition import OwnedPartition
from headrace.errors import HeadraceError
from headrace.ports import Committed, GroupConsumer, TopicPartition

_logger = logging.getLogger(__name__)

_COMMIT_SECONDS = 5.0
_PROBE_SECONDS = 5.0
_UNANSWERED_SECONDS = 40.0


class Commits:
    """Commits the watermarks of one worker's partitions.

    A member that the group has given up is not told. It would renew its leases for ever, and nobody else could run its jobs: so
    something is committed every few seconds, also when nothing ended, and what is held is given back when that fails for long.
    """

    def __init__(self, worker_name: str, consumer: GroupConsumer, holdings: Holdings) -> None:
        self._worker_name = worker_name
        self._consumer = consumer
        self._holdings = holdings
        self._assigned: Collection[TopicPartition] = ()
        self._answered_at = 0.0
        self._given_back = False
        self._held_since: float | None = None

    @property
    def partitions(self) -> int:
        """How many partitions the group gives to this member."""
        return len(self._assigned)

    @property
    def answered_at(self) -> float:
        """When the group last said that this member belongs to it, by the loop's clock."""
        return self._answered_at

    def assigned(self, sources: Collection[TopicPartition]) -> None:
        """The group has just dealt out its partitions: this member belongs to it."""
        self._assigned = sources
        self._answered_at = _now()
        self._given_back = False

    def revoked(self) -> None:
        """Nothing can be committed until the group has dealt out its partitions anew."""
        self._assigned = ()

    async def run(self, interval_seconds: float) -> None:
        """Commits now and then, until it is cancelled."""
        while True:
            await asyncio.sleep(interval_seconds)
            await self.commit()

    async def commit(self) -> None:
        """Commits the watermarks that rose: all that lies below them has ended, and its end is acknowledged."""
        self._held_since = (self._held_since or _now()) if self._holdings.held else None
        try:
            answered = await self._send(probes=_now() - self._answered_at >= _PROBE_SECONDS)
        except HeadraceError as error:
            self._holdings.news.trouble("commit", "committing for %s failed, and is tried again: %s", self._worker_name, error)
            answered = False
        if answered:
            self._answered_at = _now()
            if self._given_back:
                self._given_back = False
                self._holdings.assigned(self._assigned)
        elif self._held_since is not None and not self._given_back and self._is_unanswered(self._held_since):
            _logger.warning("nothing could be committed for %s for a while: its partitions are given back", self._worker_name)
            self._given_back = True
            self._holdings.give_back()

    def _is_unanswered(self, held_since: float) -> bool:
        """Whether the group has been silent for long. While nothing was held, there was nothing that it could answer."""
        return bool(self._holdings.held) and _now() - max(self._answered_at, held_since) >= _UNANSWERED_SECONDS

    async def _send(self, *, probes: bool) -> bool:
        """Tells whether the group took a commit. There may be nothing to commit, and then there is no answer."""
        offsets = {
            source: Committed(partition.watermark.position, _pointer(partition))
            for source, partition in self._holdings.ready.items()
            if partition.is_held() and (probes or _has_news(partition))
        }
        if not offsets and probes and self._given_back:
            offsets = await self._as_it_is()
        if not offsets or not await self._consumer.commit(offsets, timeout=_COMMIT_SECONDS):
            return False
        for source, entry in offsets.items():
            if (partition := self._holdings.ready.get(source)) is not None:
                partition.committed, partition.committed_pointer = entry.offset, entry.metadata
        return True

    async def _as_it_is(self) -> dict[TopicPartition, Committed]:
        """What is committed already, of a partition that the group still gives to this member: to be committed once more."""
        for source in self._assigned:
            entry = (await self._consumer.committed([source]))[source]
            return {source: entry or Committed(0)}
        return {}


def _has_news(partition: OwnedPartition) -> bool:
    """A newer checkpoint is news, too: beside a job that runs for an hour the watermark does not rise."""
    return partition.watermark.position > partition.committed or _pointer(partition) != partition.committed_pointer


def _pointer(partition: OwnedPartition) -> str:
    return format_pointer(partition.pointer) if partition.pointer else ""


def _now() -> float:
    return asyncio.get_running_loop().time()
