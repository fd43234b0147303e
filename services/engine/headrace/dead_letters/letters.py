"""What stands in `dead-letters`, as it is read: a letter is never refused, whatever its bytes or headers are."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from headrace.codec import decode_object
from headrace.core.timestamps import format_timestamp, from_milliseconds, to_milliseconds
from headrace.errors import ArgumentsInvalid, RecordUndecodable
from headrace.models import Source
from headrace.ports import Header, Log, Record, TopicPartition
from headrace.reading import record_at, records_of

_PREFIX = "headrace-"
# The first of the headers that an engine adds: what stands before it is the original record's.
_FIRST_HEADER = "headrace-schema-version"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A record that no job could be made of, or whose job could not be done.

    Attributes:
        partition, offset: where the letter stands in `dead-letters`.
        written_at: when it was written.
        key, value: the original bytes.
        headers: the original ones, as far as they were kept.
        reason: `undecodable`, `worker_unknown`, `arguments_invalid`, `poison`, `idempotency_conflict`, or another that a newer
            engine gives.
        message: the reason in words.
        error_type: the class of the error.
        attempt: number of the newest attempt; 0 when none was made.
        worker_name: the worker in whose queue the record stood.
        job_id: None where the record had no readable id.
        source: where the record stands, or stood, in the log.
        cut_from_bytes: how long the value was, where only its beginning was kept.
        key_cut_from_bytes: how long the key was, where only its beginning was kept.
        headers_left_out: how many bytes the headers have that were not kept; None where all were.
    """

    partition: int
    offset: int
    written_at: datetime
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()
    reason: str | None = None
    message: str = ""
    error_type: str | None = None
    attempt: int = 0
    worker_name: str | None = None
    job_id: str | None = None
    source: Source | None = None
    instance_id: str | None = None
    cut_from_bytes: int | None = None
    key_cut_from_bytes: int | None = None
    headers_left_out: int | None = None

    @property
    def place(self) -> str:
        """Where it stands, as commands take it: `partition/offset`."""
        return f"{self.partition}/{self.offset}"

    def record(self) -> dict[str, Any] | None:
        """The JSON object in the bytes; None where there is none."""
        try:
            return decode_object(self.value)
        except RecordUndecodable:
            return None

    def to_wire(self, *, whole: bool = True) -> dict[str, Any]:
        """The letter as a JSON object, without what is not known. Bytes that are no text in UTF-8 are given in base64.

        Args:
            whole: with key, value and the original headers.
        """
        described: dict[str, Any] = {
            "partition": self.partition,
            "offset": self.offset,
            "writtenAt": format_timestamp(to_milliseconds(self.written_at)),
            "reason": self.reason,
            "message": self.message,
            "errorType": self.error_type,
            "attempt": self.attempt,
            "workerName": self.worker_name,
            "jobId": self.job_id,
            "source": None if self.source is None else self.source.to_wire(),
            "instanceId": self.instance_id,
            "valueBytes": None if self.value is None else len(self.value),
            "cutFromBytes": self.cut_from_bytes,
            "keyCutFromBytes": self.key_cut_from_bytes,
            "headersLeftOut": self.headers_left_out,
        }
        if whole:
            described |= {**_as_text("key", self.key), **_as_text("value", self.value)}
            described["headers"] = [{"name": name, **_as_text("value", value)} for name, value in self.headers]
        return {name: value for name, value in described.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterFilter:
    """Which letters: those that have all that is given.

    Attributes:
        worker_name: the worker in whose queue the record stood.
        since, until: written at or after the one and before the other; with a zone.

    Raises:
        ArgumentsInvalid: a time has no zone.
    """

    worker_name: str | None = None
    reason: str | None = None
    job_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        if any(moment is not None and moment.tzinfo is None for moment in (self.since, self.until)):
            raise ArgumentsInvalid("since and until need a time zone: nobody could say which moment they mean without.")

    def matches(self, letter: DeadLetter) -> bool:
        """Whether the letter is among them."""
        return (
            self.worker_name in (None, letter.worker_name)
            and self.reason in (None, letter.reason)
            and self.job_id in (None, letter.job_id)
            and (self.since is None or letter.written_at >= self.since)
            and (self.until is None or letter.written_at < self.until)
        )


async def read_dead_letters(log: Log, topic: str, wanted: DeadLetterFilter) -> AsyncGenerator[DeadLetter]:
    """The letters that the filter lets through of those that the topic has at the time of the call; by partition, oldest first.

    Raises:
        BrokerError: the brokers cannot be reached.
        TopicMissing: there is no such topic.
    """
    async with aclosing(records_of(log, topic)) as records:
        async for record in records:
            letter = dead_letter_of(record)
            if wanted.matches(letter):
                yield letter


async def read_dead_letter(log: Log, topic: str, partition: int, offset: int) -> DeadLetter | None:
    """The letter that stands there, or None. Raises as `read_dead_letters`."""
    record = await record_at(log, TopicPartition(topic, partition), offset)
    return None if record is None else dead_letter_of(record)


def parse_place(text: str) -> tuple[int, int] | None:
    """Partition and offset of `partition/offset`; None where the text is something else, such as a job's id.

    Raises:
        ArgumentsInvalid: it looks like a place and is none.
    """
    if "/" not in text:
        return None
    partition, _, offset = text.partition("/")
    # As many digits as an offset can have: more are for nobody to take for a number.
    if not all(part.isascii() and part.isdigit() and len(part) < 19 for part in (partition, offset)):
        raise ArgumentsInvalid(f"{text!r} names no dead letter: give its partition and offset, such as 0/17, or a job's id.")
    return int(partition), int(offset)


def dead_letter_of(record: Record) -> DeadLetter:
    """The letter that a record of `dead-letters` is. What its headers do not tell, or not in a readable way, is not known."""
    own, told = _divide(record.headers)
    return DeadLetter(
        partition=record.partition,
        offset=record.offset,
        written_at=from_milliseconds(max(record.timestamp, 0)),
        key=record.key,
        value=record.value,
        headers=own,
        reason=told.get("reason"),
        message=told.get("message", ""),
        error_type=told.get("error-type"),
        attempt=_number(told, "attempt") or 0,
        worker_name=told.get("worker-name"),
        job_id=told.get("job-id"),
        source=_source(told),
        instance_id=told.get("instance-id"),
        cut_from_bytes=_number(told, "cut-from-bytes"),
        key_cut_from_bytes=_number(told, "key-cut-from-bytes"),
        headers_left_out=_number(told, "headers-left-out"),
    )


def _divide(headers: Iterable[Header]) -> tuple[tuple[Header, ...], dict[str, str]]:
    """The original headers, and what the engine's own tell. An original header never passes for one of the engine's."""
    listed = list(headers)
    starts = [number for number, (name, _) in enumerate(listed) if name == _FIRST_HEADER]
    begin = starts[-1] if starts else len(listed)
    told = {name.removeprefix(_PREFIX): (value or b"").decode(errors="replace") for name, value in listed[begin:]}
    return tuple(listed[:begin]), told


def _number(told: Mapping[str, str], name: str) -> int | None:
    text = told.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _source(told: Mapping[str, str]) -> Source | None:
    partition, offset = _number(told, "partition"), _number(told, "offset")
    if "topic" not in told or partition is None or offset is None:
        return None
    return Source(topic=told["topic"], partition=partition, offset=offset)


def _as_text(name: str, value: bytes | None) -> dict[str, str]:
    if value is None:
        return {}
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}Base64": b64encode(value).decode()}
