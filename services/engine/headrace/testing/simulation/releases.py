"""Whether whoever releases a partition has heard of all that it wrote of its jobs (rule R1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from headrace.codec import decode_object
from headrace.core.records import SnapshotHeaders, parse_lease_key, parse_snapshot_headers
from headrace.testing.simulation.starts import Broken
from headrace.testing.storage import StoredRecord

_PROMISE: Final = "a partition is released when all of it is acknowledged"


class Releases:
    """Looks for snapshots that stand behind the hand-over of the claim under which they were written, void or not.

    What an engine sends to one partition of the log lands in its order or not at all, and a send whose fate it does not know ends
    its claim (rule H6). So all that it wrote stands before the release by which it hands over. Other releases are also said of
    claims that were lost, or whose holder is gone: what was sent under these may land later.
    """

    def __init__(self) -> None:
        self._released: dict[tuple[int, int], int] = {}

    def written(self, record: StoredRecord) -> Iterator[Broken]:
        """A record landed in `job-state`."""
        if record.value is None:
            return
        if (lease := parse_lease_key(record.key or b"")) is not None:
            raw = decode_object(record.value)
            if raw["kind"] == "release" and raw["reason"] == "handed-over":
                self._released.setdefault((lease.partition, raw["epoch"]), record.offset)
        elif (headers := parse_snapshot_headers(record.headers)) is not None and not headers.repeated:
            yield from self._stated(headers, record.offset)

    def _stated(self, headers: SnapshotHeaders, offset: int) -> Iterator[Broken]:
        epoch = headers.version.epoch
        released_at = self._released.get((headers.partition, epoch))
        if released_at is not None:
            job = f"job at {headers.partition}/{headers.offset}"
            yield _PROMISE, f"{job} became {headers.status} at {offset} under {epoch}, which was released at {released_at}"
