"""A recorded job whose JSON is decoded when somebody looks at it: who counts jobs, or passes over most of them, need not wait."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import orjson

from headrace.ports import TopicPartition
from headrace.replay.history import RecordedJob
from headrace.replay.recorded.snapshots import snapshot_in

_FIELDS: Final = ("record", "source", "offset", "accepted_at", "snapshot", "redacted", "damaged", "snapshot_at")


class LoggedJob(RecordedJob):
    """A `RecordedJob` as the log has it.

    Args:
        record, snapshot: objects, or the JSON of one.
    """

    __slots__ = ("_is_damaged", "_record", "_snapshot")

    _record: bytes | Mapping[str, Any]
    _snapshot: bytes | Mapping[str, Any] | None
    _is_damaged: bool

    def __init__(
        self,
        record: bytes | Mapping[str, Any],
        source: TopicPartition,
        offset: int,
        accepted_at: int,
        snapshot: bytes | Mapping[str, Any] | None,
        redacted: Collection[str] = (),
        damaged: bool = False,
        snapshot_at: int | None = None,
    ) -> None:
        _set_record(self, record)
        _set_source(self, source)
        _set_offset(self, offset)
        _set_accepted_at(self, accepted_at)
        _set_snapshot(self, snapshot)
        _set_redacted(self, redacted)
        _set_damaged(self, damaged)
        _set_snapshot_at(self, snapshot_at)

    @property
    def record(self) -> Mapping[str, Any]:
        """The job record, as it was accepted; read only."""
        found = self._record
        if isinstance(found, bytes):
            found = orjson.loads(found)
            object.__setattr__(self, "_record", found)
        assert not isinstance(found, bytes)
        return found

    @property
    def snapshot(self) -> Mapping[str, Any] | None:
        """The newest valid snapshot, as the wire has it; None where no engine had begun with the job, or it is damaged."""
        found = self._snapshot
        if isinstance(found, bytes):
            # One that is damaged must not end the reading of all others.
            found = snapshot_in(found)
            object.__setattr__(self, "_snapshot", found)
            if found is None:
                _set_damaged(self, True)
        assert not isinstance(found, bytes)
        return found

    @property
    def damaged(self) -> bool:
        """Whether the newest valid record of its state cannot be read."""
        _ = self.snapshot  # that is known when it was decoded
        return self._is_damaged

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RecordedJob):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in _FIELDS)

    __hash__ = None  # type: ignore[assignment]  # as of every object that holds mappings


# The class is frozen, and this sets what it has in half the time that `object.__setattr__` takes: there are millions of jobs.
_set_record, _set_snapshot, _set_damaged = (vars(LoggedJob)[name].__set__ for name in ("_record", "_snapshot", "_is_damaged"))
_set_source, _set_offset, _set_accepted_at, _set_redacted, _set_snapshot_at = (
    vars(RecordedJob)[name].__set__ for name in ("source", "offset", "accepted_at", "redacted", "snapshot_at")
)
