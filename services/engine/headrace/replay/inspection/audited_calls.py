"""Which calls of gateways have done something to a job, by the audit."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import orjson

from headrace.codec import decode
from headrace.core.topics import Topics
from headrace.errors import RecordUndecodable
from headrace.models import AuditRecord
from headrace.ports import Log, LogReader, Record, TopicPartition
from headrace.reading import batches_between
from headrace.replay.history import Span
from headrace.replay.recorded.scanning import reading, side_by_side
from headrace.replay.recorded.spans import AHEAD_MILLISECONDS, bounds_of

_AROUND_MILLISECONDS: Final = AHEAD_MILLISECONDS
"""So far around a job's own records calls are looked for: a call may wait for its end, and the clocks of gateways differ."""
_READS: Final = frozenset({"get_job", "wait_for_job", "watch_job"})
"""What changes nothing, and may be asked for all the time."""


@dataclass(frozen=True, slots=True)
class AuditedCall:
    """A call that did something to a job, or was refused.

    Attributes:
        at: the time of its record, in milliseconds since the Unix epoch.
        source, offset: where that stands.
        call: who asked for what, and what was decided.
    """

    at: int
    source: TopicPartition
    offset: int
    call: AuditRecord

    @property
    def told(self) -> str:
        """In words."""
        call = self.call
        return f"{call.action or 'a call'} by {call.subject or 'nobody known'} ({call.tool or call.transport}): {call.outcome}"

    def fields(self) -> Mapping[str, Any]:
        """Who asked for what, as JSON."""
        left_out = {"schemaVersion", "jobId", "at"}
        return {name: value for name, value in self.call.to_wire().items() if name not in left_out}


async def calls_about(log: Log, topics: Topics, job_id: str, span: Span) -> list[AuditedCall]:
    """The calls that were about a job, but for those that only looked at it, in the order of their times.

    Args:
        span: of all else that is known of the job. A call that did something has left more than its record in the audit.

    Raises:
        BrokerError: the brokers cannot be reached.
    """
    topic = topics.audit(0).name
    if topic not in await log.topic_names():
        return []
    partitions = [TopicPartition(topic, number) for number in range(await log.partition_count(topic))]
    around = Span(max(0, span.start - _AROUND_MILLISECONDS), span.end + _AROUND_MILLISECONDS)
    async with reading(log) as reader:
        bounds = await bounds_of(reader, partitions, around, apart=AHEAD_MILLISECONDS)
    # Gateways write it with orjson: most records need not be decoded.
    needle = b'"jobId":%b' % orjson.dumps(job_id)

    async def read(reader: LogReader, partition: TopicPartition) -> AsyncGenerator[AuditedCall]:
        async with aclosing(batches_between(reader, {partition: bounds[partition]})) as batches:
            async for _, records in batches:
                for record in records:
                    if needle in (record.value or b"") and (call := _call_in(record, job_id)) is not None:
                        yield AuditedCall(record.timestamp, partition, record.offset, call)

    async with aclosing(side_by_side(log, list(bounds), read)) as found:
        return sorted([each async for each in found], key=lambda each: (each.at, each.source, each.offset))


def _call_in(record: Record, job_id: str) -> AuditRecord | None:
    try:
        call = decode(AuditRecord, record.value)
    except RecordUndecodable:
        return None
    return call if call.job_id == job_id and call.action not in _READS else None
