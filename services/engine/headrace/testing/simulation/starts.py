"""Whether attempts begin when they may: not while their worker is paused, and no more of them than its rate limit allows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

import orjson

from headrace.core.rate import RateLimit, Share
from headrace.core.records import LEASE_PREFIX, SnapshotHeaders, parse_lease_key, parse_snapshot_headers
from headrace.core.status import JobStatus
from headrace.core.timestamps import parse_timestamp
from headrace.testing.simulation.process import WALL_CLOCK_START
from headrace.testing.storage import StoredRecord

Broken = tuple[str, str]
"""A promise that was broken, and by what."""

# Times are written down in milliseconds.
_MOMENT_SECONDS = 0.002


class Starts:
    """Compares when attempts begin with what was asked for.

    Args:
        limit: of the worker; None for none, and also where engines do not agree about the time of day, by which starts are told.
        partitions: of the worker's queue.
        patience: seconds after which each engine knows of a pause while nothing goes wrong.
    """

    def __init__(self, limit: RateLimit | None, partitions: int, patience: float) -> None:
        self._shares = [] if limit is None else [Share(limit, number, partitions, 0.0) for number in range(partitions)]
        self._patience = patience
        self._paused_at: float | None = None
        self._claimed_before: Mapping[int, int] = {}
        self._calm_since: float | None = None
        self._claims: dict[tuple[int, int], float] = {}
        self._starts: dict[tuple[int, int], list[float]] = defaultdict(list)
        self._seen: set[tuple[int, tuple[int, ...]]] = set()

    # --- pauses ---------------------------------------------------------------------------------------------------------

    def asked(self, at: float, record: StoredRecord, newest_epochs: Mapping[int, int]) -> None:
        """The worker is paused, or resumed. `newest_epochs` are the newest claims then, by partition of the queue."""
        if record.value is None:
            self._paused_at = None
        elif self._paused_at is None:
            self._paused_at, self._claimed_before = at, newest_epochs

    def calm(self, at: float) -> None:
        """Nothing goes wrong any more."""
        self._calm_since = at

    def started(self, at: float, partition: int, epoch: int) -> Iterator[Broken]:
        """An attempt begins to work."""
        if self._paused_at is None:
            return
        if epoch > self._claimed_before.get(partition, -1):
            yield "a new owner knows what is paused", f"it started under {epoch}, which was claimed after the pause"
        if self._calm_since is not None and at > max(self._paused_at, self._calm_since) + self._patience:
            yield "nothing starts while its worker is paused", f"it started {at - self._paused_at:.3f} s after the pause"

    # --- rates ------------------------------------------------------------------------------------------------------------

    def written(self, at: float, record: StoredRecord) -> Iterator[Broken]:
        """A record landed in `job-state`."""
        if not self._shares:
            return
        if record.key is not None and record.key.startswith(LEASE_PREFIX):
            if (lease := parse_lease_key(record.key)) is not None:
                self._claims[lease.partition, record.offset] = at
            return
        headers = parse_snapshot_headers(record.headers)
        # A start counts when it is written down, also one that others never see.
        if headers is not None and record.value is not None and headers.status == JobStatus.RUNNING and not headers.repeated:
            yield from self._counted(headers, record.value)

    def _counted(self, headers: SnapshotHeaders, snapshot: bytes) -> Iterator[Broken]:
        partition, epoch = headers.partition, headers.version.epoch
        start = (headers.offset, (partition, epoch, headers.version.attempt))
        if start in self._seen:
            return
        self._seen.add(start)
        at = parse_timestamp(orjson.loads(snapshot)["attempts"][-1]["startedAt"]) / 1000 - WALL_CLOCK_START
        share, starts = self._shares[partition], self._starts[partition, epoch]
        starts.append(at)
        within = sum(each > at - share.window + _MOMENT_SECONDS for each in starts)
        if within > share.count:
            yield "no more start than the rate limit allows", f"{within} in {share.window:g} s, and {share.count} may"
        claimed_at, apart = self._claims.get((partition, epoch)), share.window / share.count
        if claimed_at is not None and at < claimed_at + apart * (len(starts) - 1) - _MOMENT_SECONDS:
            yield (
                "a new owner spreads its share of the rate limit",
                f"{len(starts)} started {at - claimed_at:.3f} s after its claim",
            )
