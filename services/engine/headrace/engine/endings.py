"""Jobs whose ids are not fresh: each is done once, however often its record came (rules E1, E2 and K3 of the protocol)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from headrace.codec import decode_object, encode
from headrace.core.duplicates import UNKNOWN, End, Verdict
from headrace.core.records import source_header
from headrace.core.snapshots import CONTINUED
from headrace.core.timestamps import from_milliseconds, parse_timestamp
from headrace.engine.admission import NotAdmitted
from headrace.engine.guarding import Guard
from headrace.engine.partition import OwnedPartition, Phase, Work
from headrace.engine.states import State
from headrace.errors import IdempotencyConflict, LeaseLost, RecordUndecodable
from headrace.idempotency import digest_of
from headrace.models import EndedKeyRecord
from headrace.ports import Acknowledged, LogWriter, NewRecord, Outcome, Record, TopicPartition

_logger = logging.getLogger(__name__)

_AGAIN_SECONDS = 1.0


class Endings:
    """Tells duplicates from jobs, and writes down in `ended-keys` which of these have ended.

    The terminal snapshot comes first, and the entry when that is acknowledged under a live lease. The watermark passes the job
    when both are. An owner that dies in between leaves a job that has ended and is at or above the watermark: the next one
    writes the entry, with the time at which the job ended.

    Args:
        topic: name of `ended-keys`.
        now: milliseconds since the Unix epoch.
        claim_lost: called when nothing more may be written about a partition.
        progressed: set when a job has left.
        guard: ends the engine by a fault of its own.
    """

    def __init__(
        self,
        writer: LogWriter,
        topic: str,
        now: Callable[[], int],
        claim_lost: Callable[[OwnedPartition, Exception], None],
        progressed: asyncio.Event,
        guard: Guard,
    ) -> None:
        self._writer = writer
        self._topic = topic
        self._now = now
        self._claim_lost = claim_lost
        self._progressed = progressed
        self._written = guard(self._done)
        self._try_again = guard(self._send_again)
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def judge(self, work: Work, record: Record, refusal: NotAdmitted | None) -> NotAdmitted | None:
        """Looks at a job that comes next and whose id is not fresh; what it is refused for, or `refusal` as it was given.

        A new job is in hand from now on. A duplicate is passed over, and nothing is written of it.

        Raises:
            Duplicate: it is one.
        """
        owned = work.partition
        job_id = work.record["id"]
        unread = refusal is not None and refusal.reason == "undecodable"
        if unread:
            work.digest = UNKNOWN
        elif (digest := _digest_of(work.record["args"])) is not None:
            work.digest = digest
        else:
            work.digest = UNKNOWN
            refusal = NotAdmitted("undecodable", "its arguments are nested too deep to be compared with others", work)
        now = self._now()
        at = record.timestamp if record.timestamp >= 0 else now
        owned.ids.forget(min(at, now))
        # What has begun was no duplicate when it did.
        verdict = Verdict.NEW if work.acknowledged else owned.ids.judge(job_id, work.offset, at, work.digest)
        if verdict is Verdict.NEW:
            owned.ids.take(job_id, work.offset, work.digest)
            return refusal
        if verdict is Verdict.CONFLICT:
            message = "its idempotency key belongs to a job with other arguments, which came before it"
            return NotAdmitted("idempotency_conflict", message, work, IdempotencyConflict)
        _logger.info("the record at %s/%d/%d is passed over: it repeats job %s", *owned.source, work.offset, job_id)
        owned.let_go(work.offset)
        self._progressed.set()
        raise Duplicate

    def write(self, work: Work) -> None:
        """The end of a job is acknowledged, and the lease was looked at just now (rule H2): writes the entry."""
        work.lane = None
        work.phase = Phase.TELLING
        fields = work.state.fields
        # What a checkpoint has of it until the entry is there: neither its result, nor its error.
        work.acknowledged = State({name: fields[name] for name in CONTINUED if name in fields})
        end = End(work.offset, parse_timestamp(fields["updatedAt"]), work.digest or UNKNOWN)
        work.partition.ids.end(work.key.decode(), end)
        self._send(work, end)

    def write_again(self, owned: OwnedPartition, record: Record) -> bool:
        """Writes the entry of a job that a former owner ended, when its record comes; tells whether it is such a record."""
        known = owned.untold.pop(record.offset, None)
        if known is None:
            return False
        try:
            raw = decode_object(record.value)
        except RecordUndecodable:
            return False
        if raw.get("id") != known.job_id.decode():
            return False  # of a queue that was made anew
        size = len(record.value or b"")
        header = source_header(owned.recovery.worker, record.partition, record.offset)
        work = Work(owned, record.offset, None, State(dict(known.fields or {})), raw, size, known.job_id, source_header=header)
        args = raw.get("args")
        work.digest = _digest_of(args) or UNKNOWN if isinstance(args, dict) else UNKNOWN
        owned.hold(work)
        if owned.is_held():
            self.write(work)
        else:
            self._claim_lost(owned, LeaseLost("its lease was not renewed in time"))
        return True

    async def settled(self) -> None:
        """Waits until the fate of all entries is known."""
        await self._idle.wait()

    def _send(self, work: Work, end: End) -> None:
        entry = EndedKeyRecord(
            id=work.key.decode(),
            worker_name=work.partition.recovery.worker,
            partition=work.partition.source.partition,
            offset=end.offset,
            ended_at=from_milliseconds(end.at),
            arguments_digest=end.digest or None,
        )
        self._under_way += 1
        self._idle.clear()
        place = TopicPartition(self._topic, work.partition.state_partition)
        self._writer.submit(place, [NewRecord(work.key, encode(entry), [work.source_header])], partial(self._written, work, end))

    def _done(self, work: Work, end: End, outcome: Outcome) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._idle.set()
        if not self._may_go_on(work):
            return
        if isinstance(outcome, Acknowledged):
            work.partition.let_go(work.offset)
            self._progressed.set()
            return
        _logger.warning("the end of job %s is not in %s yet: %s", work.key.decode(), self._topic, outcome.reason)
        # It may be there twice then, and says the same.
        asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self._try_again, work, end)

    def _send_again(self, work: Work, end: End) -> None:
        if self._may_go_on(work):
            self._send(work, end)

    def _may_go_on(self, work: Work) -> bool:
        """Rules H2 and F3: whether the job is in hand still, under a lease."""
        owned = work.partition
        if not owned.live or owned.works.get(work.offset) is not work:
            return False
        if not owned.is_held():
            self._claim_lost(owned, LeaseLost("its lease was not renewed in time"))
        return owned.live


def _digest_of(args: Mapping[str, Any]) -> str | None:
    """The digest of arguments; None where they are nested deeper than JSON can be written, though it can be read."""
    try:
        return digest_of(args)
    except (TypeError, RecursionError):
        return None


class Duplicate(Exception):
    """A record asks for a job that there is already."""
