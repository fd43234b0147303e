"""What becomes a dead letter: the original bytes, with the reason in the headers, cut where they would not fit."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from headrace.core.partitions import key_partition
from headrace.core.topics import DEAD_LETTER_PARTITIONS
from headrace.models import DeadLetterHeaders
from headrace.ports import Header, NewRecord, Record, TopicPartition

# A letter must fit into its topic whatever the record is: one that does not would hold the watermark for ever.
_LARGEST_VALUE_BYTES = 1_900_000
_LARGEST_KEY_BYTES = 64 * 1024
_LARGEST_HEADERS_BYTES = 64 * 1024
# What the lengths of a header's name and value take at most, so that many empty ones are bounded too.
_HEADER_LENGTHS_BYTES = 10


def letter_of(
    record: Record, described: DeadLetterHeaders, topic: str, *, without: Collection[str] = ()
) -> tuple[TopicPartition, NewRecord]:
    """The letter about a record, and where it goes.

    Args:
        topic: name of `dead-letters`.
        without: names of headers, in lower case, that are not for whoever reads it.
    """
    headers = [(name, value.encode(errors="replace")) for name, value in described.to_wire().items()]
    kept, left_out = _headers_that_fit([header for header in record.headers if header[0].lower() not in without])
    if left_out:
        headers.append(("headrace-headers-left-out", str(left_out).encode()))
    value = record.value
    if value is not None and len(value) > _LARGEST_VALUE_BYTES:
        # The beginning is better than nothing.
        headers.append(("headrace-cut-from-bytes", str(len(value)).encode()))
        value = value[:_LARGEST_VALUE_BYTES]
    key = record.key if record.key is not None else b""
    partition = key_partition(described.job_id or key.decode(errors="replace"), DEAD_LETTER_PARTITIONS)
    if len(key) > _LARGEST_KEY_BYTES:
        headers.append(("headrace-key-cut-from-bytes", str(len(key)).encode()))
        key = key[:_LARGEST_KEY_BYTES]
    return TopicPartition(topic, partition), NewRecord(key, value, [*kept, *headers])


def _headers_that_fit(headers: Iterable[Header]) -> tuple[list[Header], int]:
    """The first of a record's headers, as many as a letter takes; and how many bytes the names and values of the rest have."""
    kept: list[Header] = []
    room, left_out = _LARGEST_HEADERS_BYTES, 0
    for name, value in headers:
        size = len(name.encode()) + len(value or b"")
        room -= size + _HEADER_LENGTHS_BYTES
        if room >= 0:
            kept.append((name, value))
        else:
            left_out += size
    return kept, left_out
