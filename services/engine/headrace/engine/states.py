"""How jobs stand, with the form in which `job-state` says it: made once for all jobs that stand alike."""

from __future__ import annotations

from typing import Final

import orjson

from headrace.core import snapshots
from headrace.core.records import STATUS_HEADER, VERSION_HEADER
from headrace.core.snapshots import Snapshot, Writer
from headrace.ports import Header


class State:
    """What changes of a job, as a snapshot says it. It never changes itself, so any number of jobs may share it.

    They do: what is written when a job starts differs from job to job by the job alone, if they start under one claim and in
    one turn of the loop, and so does the end of those that return nothing and end within a millisecond. A state remembers the
    state that it last became by each of these two moves.

    Attributes:
        fields: the part of the snapshot that changes, in the terms of `headrace.core.snapshots`.
        encoded: the JSON of the fields with a comma for the opening brace: what the snapshot ends with.
        version_header: the header that tells the order among the job's snapshots.
        status_header: the header that tells the status.
    """

    __slots__ = ("_begun", "_completed", "encoded", "fields", "status_header", "version_header")

    def __init__(self, fields: Snapshot) -> None:
        self.fields = fields
        self.encoded: Final = b"," + orjson.dumps(fields)[1:]
        self.version_header: Header = (
            VERSION_HEADER,
            b"%d/%d/%d" % (fields["epoch"], fields["attempt"], fields["sequence"]),
        )
        self.status_header: Header = (STATUS_HEADER, fields["status"].encode())
        self._begun: tuple[str, Writer, State] | None = None
        self._completed: tuple[str, State] | None = None

    def begin(self, writer: Writer, now: str) -> State:
        """The state when a new attempt begins; see `snapshots.running`."""
        known = self._begun
        if known is None or known[0] != now or known[1] is not writer:
            known = self._begun = (now, writer, State(snapshots.running(self.fields, writer, now)))
        return known[2]

    def complete(self, now: str) -> State:
        """The state when the attempt has returned nothing; see `snapshots.completed`."""
        known = self._completed
        if known is None or known[0] != now:
            known = self._completed = (now, State(snapshots.completed(self.fields, None, now)))
        return known[1]
