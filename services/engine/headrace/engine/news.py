"""What the log says of a worker that stands still: what it waits for, and an outage once for all of its partitions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping

from headrace.core.ownership import PartitionLedger
from headrace.core.records import instance_of
from headrace.core.timestamps import format_timestamp
from headrace.ports import TopicPartition

_logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
"""What lasts longer than this is worth a line; a rebalance, or an orderly end elsewhere, takes a second or two."""

_APART_SECONDS = 60.0


class WorkerNews:
    """Says things once that come from each partition, and again every few seconds, while nothing gets on.

    An outage is over when all partitions are held again, or when nothing was heard of it for a minute. What is not said for
    being a repetition is there at level `DEBUG`.
    """

    def __init__(self, worker_name: str) -> None:
        self._worker = worker_name
        self._told: set[str] = set()
        self._troubled_at = 0.0
        self._claims_ended = 0
        self._waited_for: dict[TopicPartition, float] = {}
        self._wait_told = False
        self._join: asyncio.TimerHandle | None = None

    # --- an outage ------------------------------------------------------------------------------------------------------

    def claim_ended(self, source: TopicPartition, reason: Exception) -> None:
        """The claim of a partition is lost."""
        kind = f"a claim ended by {type(reason).__name__}"
        self.trouble(kind, "the claim of %s/%d ends, and those of others may follow: %s", *source, reason)
        self._claims_ended += 1

    def trouble(self, kind: str, message: str, *arguments: object) -> None:
        """Something failed that is tried again. Only the first of its kind in an outage is a warning."""
        now = _now()
        if now - self._troubled_at >= _APART_SECONDS:
            self._forget_trouble()
        self._troubled_at = now
        level = logging.DEBUG if kind in self._told else logging.WARNING
        self._told.add(kind)
        _logger.log(level, message, *arguments)

    def all_held(self, count: int) -> None:
        """All partitions that this engine is to have are held."""
        if self._told:
            after = f", after {self._claims_ended} claims had ended" if self._claims_ended else ""
            _logger.warning("%s goes on, with %d partitions%s", self._worker, count, after)
        self._forget_trouble()

    def _forget_trouble(self) -> None:
        self._told.clear()
        self._claims_ended = 0

    # --- leases ---------------------------------------------------------------------------------------------------------

    def waits_for(self, leases: Mapping[TopicPartition, PartitionLedger]) -> None:
        """These partitions were looked at, and others hold them still."""
        now = _now()
        for source in leases:
            self._waited_for.setdefault(source, now)
        due = [source for source in leases if now - self._waited_for[source] >= PATIENCE_SECONDS]
        if not due or self._wait_told:
            return
        self._wait_told = True
        ledger = leases[due[0]]
        _logger.warning(
            "%s waits for the leases of %d partitions; %s, who holds %s/%d, was last heard of at %s and has %g s to renew it",
            self._worker,
            len(leases),
            instance_of(ledger.holder or ""),
            *due[0],
            format_timestamp(ledger.held_at),
            ledger.term_seconds,
        )

    def held(self, source: TopicPartition) -> None:
        """A partition is waited for no more, since it is held."""
        self._waited_for.pop(source, None)
        self._wait_told = self._wait_told and bool(self._waited_for)

    def wanted(self, sources: Collection[TopicPartition]) -> None:
        """Others are waited for no more, since they are to go to another engine."""
        for source in self._waited_for.keys() - sources:
            self.held(source)

    # --- the group ------------------------------------------------------------------------------------------------------

    def joins(self, session_seconds: float) -> None:
        """The group is about to deal out its partitions.

        Args:
            session_seconds: how long it waits for a member of which nothing is heard.
        """
        self.joined()
        self._join = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._say_join, session_seconds)

    def joined(self) -> None:
        """It has, or this engine takes no part in it any more."""
        if self._join is not None:
            self._join.cancel()
            self._join = None

    def _say_join(self, session_seconds: float) -> None:
        message = (
            "%s waits for its group to deal out its partitions: the brokers are away, or a member has died or does not answer, "
            "whom the group gives up after %g s"
        )
        _logger.warning(message, self._worker, session_seconds)


def _now() -> float:
    return asyncio.get_running_loop().time()
