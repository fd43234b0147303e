"""What a span's replay needs, written into a file: the command `headrace export`, for programs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from headrace.core.timestamps import parse_timestamp
from headrace.errors import ArgumentsInvalid
from headrace.ports import ConversationRef
from headrace.recordings import keyed_names
from headrace.replay.exports.export_format import ExportHeader, ExportWriter
from headrace.replay.exports.redaction import Redaction
from headrace.replay.history import RecordedJob, Wanted
from headrace.replay.recorded.conversations import conversations_of
from headrace.replay.recorded.log_history import LogHistory

_MOST_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        redactions: how often each path was met.
        warnings: where something that was taken out still stands, or can be guessed by, and what is left out as no reader could
            take it in.
    """

    header: ExportHeader
    redactions: Mapping[str, int]
    warnings: Sequence[str] = ()


async def export_span(
    history: LogHistory,
    wanted: Wanted,
    path: Path,
    *,
    redact: Collection[str] = (),
    overwrite: bool = False,
    watch: Callable[[int], None] = lambda _: None,
) -> Exported:
    """Writes the jobs that are wanted to a file, with what they recorded, the memory of the conversations that they are about,
    and the definitions of all workers, as jobs may enqueue for any. The file is there when it is whole.

    Args:
        redact: paths of fields that are not to be in it; see `Redaction`.
        overwrite: whether a file of that name may be there.
        watch: is told now and then how many jobs were written.

    Raises:
        ArgumentsInvalid: a path is no field's, or met nothing though there were jobs; or the file cannot be written.
        HistoryGone: the span begins before what is left of the log.
        WorkerUnknown: one of the workers has no queue.
        BrokerError: the brokers cannot be reached.
    """
    redaction = Redaction(redact)
    with ExportWriter(path, overwrite=overwrite) as writer:
        exporting = _Exporting(history, wanted, writer, redaction)
        await exporting.write(watch)
        if writer.counts["job"] and redaction.missed:
            raise ArgumentsInvalid(
                f"`redact` {redaction.missed[0]} has met nothing: is it misspelt, or inside of another one? No file was written."
            )
        header = ExportHeader(
            namespace=history.topics.namespace,
            span=wanted.span,
            workers=tuple(sorted(wanted.workers)),
            redacted=redaction.paths,
            counts=writer.counts,
        )
        finishing = asyncio.create_task(asyncio.to_thread(writer.finish, header))
        try:
            header = await asyncio.shield(finishing)
        except asyncio.CancelledError:
            # The thread goes on: what it writes is removed, or in its place, when it has done with it.
            await asyncio.wait({finishing})
            raise
    return Exported(header, dict(redaction.counts), (*redaction.warnings, *exporting.warnings))


def _named(names: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


@dataclass(slots=True)
class _Exporting:
    """Writes what a history has of a span."""

    history: LogHistory
    wanted: Wanted
    writer: ExportWriter
    redaction: Redaction
    _conversations: set[ConversationRef] = field(default_factory=set)
    _until: int = 0
    _left_out: list[str] = field(default_factory=list)
    _keyed: set[str] = field(default_factory=set)

    @property
    def warnings(self) -> Sequence[str]:
        """What is not in the file, and what in it lets a guess at what was redacted be checked."""
        told = []
        if self._left_out:
            told.append(f"left out, as it is nested too deep to be read from a file: {_named(self._left_out)}")
        if self.redaction.paths and self._keyed:
            told.append(
                f"each `key` of recordings named {_named(sorted(self._keyed))} is in the file as a digest (SHA-256, no salt),"
                " by which a replay finds them: where it was made of what is redacted, whoever guesses that can see so"
            )
        return tuple(told)

    async def write(self, watch: Callable[[int], None]) -> None:
        self._until = self.wanted.span.end
        async with aclosing(self.history.jobs(self.wanted)) as batches:
            async for batch in batches:
                for job in batch:
                    if self._write_job(job):
                        await self._write_recordings(job)
                watch(self.writer.counts["job"])
        for definition in (await self.history.worker_definitions()).values():
            self._add(f"worker {definition.name}", "worker", definition=definition.to_wire())
        if not self.redaction.hides_conversations:
            for conversation in sorted(self._conversations):
                await self._write_memory(conversation)

    def _add(self, what: str, kind: str, **fields: Any) -> bool:
        """Writes a line, or notes what is left out."""
        is_written = self.writer.add(kind, **fields)
        if not is_written:
            self._left_out.append(what)
        return is_written

    def _write_job(self, job: RecordedJob) -> bool:
        self._conversations.update(conversations_of(job))
        attempts = () if job.snapshot is None else job.snapshot.get("attempts") or ()
        self._until = max(self._until, job.snapshot_at or 0, *(parse_timestamp(each["startedAt"]) for each in attempts))
        return self._add(
            f"job {job.id}",
            "job",
            topic=job.source.topic,
            partition=job.source.partition,
            offset=job.offset,
            acceptedAt=job.accepted_at,
            record=self.redaction.job(job.record),
            snapshot=None if job.snapshot is None else self.redaction.job(job.snapshot),
            **({"damaged": True} if job.damaged else {}),
            snapshotAt=job.snapshot_at,
        )

    async def _write_recordings(self, job: RecordedJob) -> None:
        for each in await self.history.own_recordings(job):
            try:
                value = orjson.loads(each.value)
            except orjson.JSONDecodeError:
                continue  # no job can have written it
            self._keyed.update(keyed_names(each.place.key.name))
            failure = each.place.key.failure
            if self.redaction.touches_recordings:
                hide = self.redaction.recording if failure is None else self.redaction.failure
                value = hide(each.place.key.name, value)
            self._add(
                f"recording {each.place.key.name} of job {job.id}",
                "recording",
                jobId=job.id,
                attempt=each.place.attempt,
                name=each.place.key.name,
                number=each.place.key.number,
                **({} if failure is None else {"failure": failure}),
                at=each.at,
                **({} if each.job_place is None else {"jobPlace": each.job_place.decode()}),
                value=value,
            )

    async def _write_memory(self, conversation: ConversationRef) -> None:
        for each in await self.history.memory_records(conversation, self._until):
            self._add(
                f"memory {each.row.key.decode()}",
                "memory",
                key=each.row.key.decode(),
                offset=each.row.offset,
                at=each.at,
                timestampType=int(each.by_broker),
                value=self.redaction.memory(orjson.loads(each.row.value)),
            )
