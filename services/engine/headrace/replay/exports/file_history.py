"""What was recorded, read from an export: no cluster is needed."""

from __future__ import annotations

import asyncio
from array import array
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from headrace.codec import encode_foreign, validate
from headrace.core.partitions import key_partition
from headrace.core.timestamps import format_timestamp
from headrace.core.topics import MEMORY_PARTITIONS
from headrace.errors import ArgumentsInvalid, ExportDamaged, HistoryGone, JobUnknown, NotRecorded, WorkerUnknown
from headrace.models import WorkerDefinition
from headrace.ports import ConversationRef, Header, MemorySnapshot, TopicPartition
from headrace.replay.exports.export_format import ExportHeader, read_header, read_lines
from headrace.replay.exports.redaction import Redaction
from headrace.replay.history import Began, RecordedJob, RecordingKey, Span, Wanted
from headrace.replay.recorded.conversations import conversations_of
from headrace.replay.recorded.folding import Place, place_of_job
from headrace.replay.recorded.memory_history import PastConversations
from headrace.replay.recorded.snapshots import is_readable_snapshot
from headrace.replay.recorded.wanted import full_path, matches
from headrace.replay.recorded.what_is_left import span_gone

_AT_ONCE: Final = 500


class _MemoryRecord(NamedTuple):
    """A record of a conversation, as it was read from the log."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    timestamp_type: int
    headers: Sequence[Header] = ()


class FileHistory:
    """The `History` of an export; made by `read_file_history`. Jobs are read from the file each time, all else is in memory."""

    def __init__(self, path: Path, header: ExportHeader) -> None:
        self._path = path
        self._header = header
        self._definitions: dict[str, WorkerDefinition] = {}
        # In the order of the log, each with the place of the job's record where that is known.
        self._recorded: dict[tuple[str, int], list[tuple[Place | None, RecordingKey, bytes]]] = {}
        self._memory = PastConversations()
        # Of any other one, what the memory was is not known.
        self._conversations: set[ConversationRef] = set()
        self._redaction = Redaction(header.redacted)
        # Times at which jobs were accepted, by worker.
        self._accepted: dict[str, array[int]] = {}

    @property
    def header(self) -> ExportHeader:
        """What the export says of itself."""
        return self._header

    @property
    def span(self) -> Span:
        """In which its jobs were accepted."""
        return self._header.span

    def read(self) -> None:
        """Reads all of the file once. Raises ExportDamaged."""
        for line in read_lines(self._path):
            try:
                self._take(line)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise ExportDamaged(f"{self._path} has a line that is none of an export ({error!r}). Export it again.") from None

    def _take(self, line: Mapping[str, Any]) -> None:
        match line["type"]:
            case "job":
                job = _job_of(line, self._header.redacted)
                self._accepted.setdefault(job.record["workerName"], array("q")).append(job.accepted_at)
                self._conversations.update(conversations_of(job))
            case "worker":
                definition = validate(WorkerDefinition, line["definition"])
                self._definitions[definition.name] = definition
            case "recording":
                key = RecordingKey(line["name"], line["number"], line.get("failure"))
                found = self._recorded.setdefault((line["jobId"], line["attempt"]), [])
                place = None if (told := line.get("jobPlace")) is None else told.encode()
                found.append((place, key, encode_foreign(line["value"])))
            case "memory":
                conversation, name = line["key"].rpartition("/")[0], line["key"].encode()
                number = key_partition(conversation, MEMORY_PARTITIONS)
                value, by = encode_foreign(line["value"]), line.get("timestampType", 0)
                record = _MemoryRecord("memory", number, line["offset"], line["at"], name, value, by)
                self._memory.add([record], MEMORY_PARTITIONS)
            case _:
                pass  # of a later version

    async def worker_definitions(self) -> Mapping[str, WorkerDefinition]:
        """The workers that were defined when it was made, by name."""
        return self._definitions

    async def recorded_workers(self) -> Collection[str]:
        """The names of the workers that have jobs in it."""
        return self._accepted.keys()

    async def find(self, job_id: str) -> RecordedJob:
        """A job. Raises JobUnknown where it is not in the export."""
        return (await self.runs(job_id))[-1]

    async def runs(self, job_id: str) -> Sequence[RecordedJob]:
        """All jobs that had an id, in the order of the log; see `History.runs`. Raises JobUnknown."""
        found = await asyncio.to_thread(lambda: [job for job in self._jobs() if job.id == job_id])
        if not found:
            raise JobUnknown(f"There is no job {job_id!r} in {self._path}.")
        return found

    async def jobs(self, wanted: Wanted) -> AsyncGenerator[Sequence[RecordedJob]]:
        """The jobs that are wanted, in batches.

        Raises:
            HistoryGone: the span begins before that of the export, or after it, or ends after it.
            WorkerUnknown: no job of one of the workers is in the export.
            ArgumentsInvalid: what the jobs are to be chosen by was redacted.
        """
        self.check_fields(wanted.fields)
        if wanted.span.start < self.span.start:
            raise HistoryGone(span_gone(wanted.span, self.span, str(self._path)))
        if wanted.span.start >= self.span.end:
            raise HistoryGone(
                f"The span begins at {format_timestamp(wanted.span.start)}, and that of {self._path} ends at "
                f"{format_timestamp(self.span.end)}: begin before that."
            )
        if wanted.span.end > self.span.end:
            raise HistoryGone(
                f"The span ends at {format_timestamp(wanted.span.end)}, and that of {self._path} at "
                f"{format_timestamp(self.span.end)}: end there."
            )
        if unknown := sorted(set(wanted.workers) - self._accepted.keys()):
            there_are = ", ".join(sorted(self._accepted)) or "none"
            raise WorkerUnknown(f"No job of a worker named {unknown[0]!r} is in {self._path}. There are jobs of: {there_are}.")
        chosen = (
            job
            for job in self._jobs()
            if job.accepted_at in wanted.span
            and (not wanted.workers or job.record["workerName"] in wanted.workers)
            and matches(job, wanted.fields)
        )
        while batch := await asyncio.to_thread(lambda: list(islice(chosen, _AT_ONCE))):
            yield batch

    async def count(self, wanted: Wanted) -> int:
        """How many jobs of these workers were accepted in the span, whatever their fields are."""
        chosen = (times for worker, times in self._accepted.items() if not wanted.workers or worker in wanted.workers)
        return sum(at in wanted.span for times in chosen for at in times)

    async def count_left(self, wanted: Wanted) -> Counter[str]:
        """How many of the jobs that are wanted are in it, by worker. Raises as `jobs` where fields are given."""
        if not wanted.fields:
            times = {worker: self._accepted[worker] for worker in wanted.workers or self._accepted}
            counts = Counter({worker: sum(at in wanted.span for at in each) for worker, each in times.items()})
            return +counts
        counts = Counter()
        async with aclosing(self.jobs(wanted)) as batches:
            async for batch in batches:
                counts.update(str(job.record["workerName"]) for job in batch)
        return counts

    def check_fields(self, fields: Collection[str]) -> None:
        """Raises ArgumentsInvalid where jobs are to be chosen by a field that was redacted: none would be found."""
        if hidden := [path for path in fields if self._redaction.hides(full_path(path))]:
            raise ArgumentsInvalid(f"No jobs can be chosen by {hidden[0]}: that was redacted in {self._path}.")

    async def recordings(self, job: RecordedJob, attempt: int) -> Mapping[RecordingKey, bytes]:
        """What an attempt of a job recorded, as JSON."""
        if (found := self._recorded.get((job.id, attempt))) is None:
            return {}
        own = place_of_job(job)
        return {key: value for place, key, value in found if place in (None, own)}

    async def memory_at(self, conversation: ConversationRef, at: int | Began) -> MemorySnapshot:
        """A conversation's memory as it was; see `History.memory_at`.

        Raises:
            NotRecorded: it is not in the export: no job names that conversation, or who talked was left out.
        """
        if self._redaction.hides_conversations:
            raise NotRecorded(f"No memory is in {self._path}: who talked in which conversation was redacted.")
        if conversation not in self._conversations:
            raise NotRecorded(
                f"The memory of conversation {conversation.conversation_id!r} of user {conversation.user_id!r} is not in "
                f"{self._path}: no job in it names both in its arguments or its context."
            )
        return await asyncio.to_thread(self._memory.at, conversation, at)

    def _jobs(self) -> Iterator[RecordedJob]:
        return (_job_of(line, self._header.redacted) for line in read_lines(self._path) if line["type"] == "job")


def _job_of(line: Mapping[str, Any], redacted: Collection[str]) -> RecordedJob:
    source = TopicPartition(line["topic"], line["partition"])
    record, snapshot = line["record"], line["snapshot"]
    damaged, made_at = line.get("damaged") is True, line.get("snapshotAt")
    if snapshot is not None and not is_readable_snapshot(snapshot):
        # An export of an earlier headrace may have one that was taken for readable.
        snapshot, damaged = None, True
    return RecordedJob(record, source, line["offset"], line["acceptedAt"], snapshot, redacted, damaged, made_at)


def read_file_history(path: Path) -> FileHistory:
    """What an export has. All of the file is read once, so that nothing damaged is ever taken for what was recorded.

    Raises:
        ExportDamaged: the file is no export, or not all of one.
    """
    header = read_header(path)
    try:
        history = FileHistory(path, header)
    except ArgumentsInvalid as error:
        raise ExportDamaged(f"{path} has a header that is none of an export ({error}). Export it again.") from None
    history.read()
    return history
