"""What the holder of a job partition knows of its jobs, so that its successor need not read all of their history.

A checkpoint is true for every record of `job-state` below `covers` (rule K1): a successor takes the checkpoint, and then the
records from `covers` on (rule K2). The commit of the group names the newest one, by a pointer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from headrace.core.watermark import Watermark


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The jobs of one partition.

    Attributes:
        epoch: of the claim under which it was written.
        covers: offset in `job-state` below which every record is taken into account.
        watermark: offset in the queue below which every job has ended.
        ranges: what has ended above it, as (first, last).
        begun: of each job that was begun and has not ended, by offset: its id, and what changes of it.
    """

    epoch: int
    covers: int
    watermark: int
    ranges: Sequence[tuple[int, int]]
    begun: Mapping[int, tuple[str, Mapping[str, Any]]]

    def finished(self) -> Watermark:
        """What has ended."""
        ended = Watermark(self.watermark)
        for first, last in self.ranges:
            ended.skip(first, last + 1)
        return ended


class Pointer(NamedTuple):
    """Where the newest checkpoint of a partition is to be looked for.

    Attributes:
        epoch: of the claim under which it was written.
        covers: where in `job-state` a successor begins to read: it meets the checkpoint, and all that the checkpoint leaves out.
    """

    epoch: int
    covers: int


def format_pointer(pointer: Pointer) -> str:
    """The pointer as the metadata of a commit."""
    return f"checkpoint/{pointer.epoch}/{pointer.covers}"


def parse_pointer(metadata: str) -> Pointer | None:
    """The pointer in the metadata of a commit; None where there is none."""
    parts = metadata.split("/")
    if len(parts) != 3 or parts[0] != "checkpoint" or not (parts[1].isdecimal() and parts[2].isdecimal()):
        return None
    return Pointer(int(parts[1]), int(parts[2]))
