"""Everything that is known of one job, in order: the command `headrace timeline`, for programs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import orjson

from headrace.core.records import cancellation_key
from headrace.dead_letters.letters import dead_letter_of
from headrace.ports import Record, TopicPartition
from headrace.reading import batches_between, records_of
from headrace.replay.history import DAMAGED, RecordedJob, Span
from headrace.replay.inspection.audited_calls import calls_about
from headrace.replay.inspection.lines import Line as Line
from headrace.replay.inspection.lines import lines_of_runs, removals_of_runs
from headrace.replay.inspection.relatives import EARLIER_MILLISECONDS, Relative, relatives_of
from headrace.replay.inspection.steps import MISSING, Change
from headrace.replay.recorded.finding import Trail
from headrace.replay.recorded.folding import Place, place_of_job
from headrace.replay.recorded.joining import accepted_state
from headrace.replay.recorded.log_history import LogHistory
from headrace.replay.recorded.recorded_answers import Answer
from headrace.replay.recorded.run_times import run_at, time_of_run
from headrace.replay.recorded.scanning import reading
from headrace.replay.recorded.spans import ALL_TIME, bounds_of


@dataclass(frozen=True, slots=True)
class Timeline:
    """A job, all that happened to it, the jobs that came of it, and its chain of retries.

    Attributes:
        state: the job as it stands now; as it was last known, where a newer record is damaged.
        earlier: jobs that had its id before, oldest first; the lines tell of them, too.
        relatives: what it does anew, from the first of the chain on; then its children, by their times; then what does it anew.
    """

    job: RecordedJob
    state: Mapping[str, Any]
    lines: Sequence[Line]
    relatives: Sequence[Relative]
    earlier: Sequence[RecordedJob] = ()

    @property
    def status(self) -> str:
        """As the job stands now; `damaged` where the newest record of it cannot be read."""
        return DAMAGED if self.job.damaged else str(self.state["status"])

    @property
    def retry_of(self) -> str | None:
        """The id of the job that this one does anew; its own record may be gone from the log."""
        found = self.job.record.get("retryOf")
        return None if found is None else str(found)

    @property
    def retries(self) -> Sequence[Relative]:
        """The jobs that do this one anew, or a retry of it."""
        return [each for each in self.relatives if each.relation == "retry"]

    @property
    def outcome(self) -> tuple[str, str]:
        """What became of the work at last: the id and the status of the newest retry, or of the job where there is none.

        What does a job anew that had its id before tells nothing of this one.
        """
        of_earlier: set[str] = set()
        since = time_of_run(self.job).start if self.earlier else 0
        last = self.job.id, self.status
        for each in self.retries:
            if each.retry_of in of_earlier or (each.retry_of == self.job.id and each.job.accepted_at < since):
                of_earlier.add(each.job.id)
            else:
                last = each.job.id, each.status
        return last

    def to_wire(self) -> dict[str, Any]:
        """As JSON."""
        last, status = self.outcome
        return {
            "job": self.state,
            **({"damaged": True} if self.job.damaged else {}),
            **({"earlier": [_state_of(each) for each in self.earlier]} if self.earlier else {}),
            "outcome": {"id": last, "status": status},
            "lines": [line.to_wire() for line in self.lines],
            "children": [each.to_wire() for each in self.relatives if each.relation == "child"],
            "retries": [each.to_wire() for each in self.retries],
            "retried": [each.to_wire() for each in self.relatives if each.relation == "retried"],
        }


async def timeline_of(history: LogHistory, job_id: str) -> Timeline:
    """All that the log has of a job and, where compaction has been, what can be rebuilt of it.

    Raises:
        JobUnknown: nothing is in the log of it.
        HistoryGone: its record was deleted.
        BrokerError: the brokers cannot be reached.
    """
    trail = await history.trail(job_id)
    job, first = trail.job, trail.runs[0]
    own = lines_of_runs(trail.runs)
    relatives = await relatives_of(history.log, first)
    others = [
        *removals_of_runs(trail.runs),
        *_recorded(await history.all_recordings(job_id), [run.job for run in trail.runs]),
        *await _cancellations(history, job),
        *await _dead_letters(history, first.job),
        *_related(relatives, job.id),
        *(_duplicate(record, trail.runs) for record in trail.duplicates),
    ]
    others += await _calls(history, job_id, own, others)
    return Timeline(job, _state_of(job), merged(own, others), relatives, [run.job for run in trail.earlier])


def _state_of(job: RecordedJob) -> Mapping[str, Any]:
    return job.snapshot if job.snapshot is not None else accepted_state(job)


def merged(own: Sequence[Line], others: Iterable[Line]) -> list[Line]:
    """All lines in one order: the job's own in theirs, since its writers' clocks may differ, and the others by their times.

    Nothing was written of a job before it was accepted, nor of an attempt before that began, whatever clocks say.
    """
    # Of what does not tell its run the first attempt of that number counts.
    begun: dict[tuple[int | None, int | None], int] = {}
    for number, line in enumerate(own):
        for key in ((line.run, None), (line.run, line.attempt), (None, line.attempt)):
            begun.setdefault(key, number)
    latest = list(accumulate((line.at for line in own[1:]), max))

    def place(line: Line) -> int:
        """The number of own lines before it."""
        after = max(begun.get((line.run, None), 0), begun.get((line.run, line.attempt), 0))
        return 1 + max(bisect_right(latest, line.at), after)

    placed = [((number + 1, 0, 0), line) for number, line in enumerate(own)]
    placed += [((place(line), 1, line.at), line) for line in others]
    return [line for _, line in sorted(placed, key=lambda each: each[0])]


# --- what others wrote of it ----------------------------------------------------------------------------------------------


def _recorded(answers: Iterable[Answer], runs: Sequence[RecordedJob]) -> list[Line]:
    places: dict[Place | None, int] = {place_of_job(job): number for number, job in enumerate(runs, 1)} if len(runs) > 1 else {}
    return [
        Line(
            at=each.at,
            origin="log",
            source=each.source,
            offset=each.offset,
            event="recorded",
            attempt=each.place.attempt,
            run=places.get(each.job_place or _place_at(runs, each.at)),
            changes=[Change(f"recordings.{each.place.key.name}.{each.place.key.number}", MISSING, _decoded(each.value))],
            note="" if each.place.key.failure is None else "what was asked raised this",
        )
        for each in answers
    ]


def _place_at(runs: Sequence[RecordedJob], at: int) -> Place | None:
    """Where the record stands of the run whose attempts wrote something at a time."""
    run = run_at(runs, at)
    return None if run is None else place_of_job(run)


def _decoded(value: bytes) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value.decode(errors="replace")


def _duplicate(record: Record, runs: Sequence[Trail]) -> Line:
    source = TopicPartition(record.topic, record.partition)
    after = [run for run in runs if run.has_begun and run.job.source == source and run.job.offset > record.offset]
    known = [run for run in runs if run.has_begun and run not in after]
    told = "and done, or passed over: compaction has left nothing of it" if after and not known else "and passed over"
    note = f"its request was made again, {told}"
    return Line(at=record.timestamp, origin="log", source=source, offset=record.offset, event="duplicate", note=note)


async def _cancellations(history: LogHistory, job: RecordedJob) -> list[Line]:
    topic, key = history.topics.control.name, cancellation_key(job.tenant, job.id)
    if topic not in await history.log.topic_names():
        return []
    async with aclosing(records_of(history.log, topic)) as records:
        return [
            Line(
                at=record.timestamp,
                origin="log",
                source=TopicPartition(record.topic, record.partition),
                offset=record.offset,
                event="cancel-requested",
            )
            async for record in records
            if record.key == key and record.value is not None
        ]


async def _calls(history: LogHistory, job_id: str, own: Sequence[Line], others: Sequence[Line]) -> list[Line]:
    """What gateways were asked to do with it, around the times of all else: a call that did something has left more than that."""
    times = [line.at for line in (*own, *others)]
    return [
        Line(
            at=each.at,
            origin="log",
            source=each.source,
            offset=each.offset,
            event="called",
            note=each.told,
            changes=[Change("call", MISSING, each.fields())],
        )
        for each in await calls_about(history.log, history.topics, job_id, Span(min(times), max(times) + 1))
    ]


async def _dead_letters(history: LogHistory, job: RecordedJob) -> list[Line]:
    topic = history.topics.dead_letters.name
    if topic not in await history.log.topic_names():
        return []
    partitions = [TopicPartition(topic, number) for number in range(await history.log.partition_count(topic))]
    lines = []
    async with reading(history.log) as reader:
        since = Span(max(0, job.accepted_at - EARLIER_MILLISECONDS), ALL_TIME.end)
        bounds = dict(await bounds_of(reader, partitions, since))
        async with aclosing(batches_between(reader, bounds)) as batches:
            async for source, records in batches:
                for record in records:
                    letter = dead_letter_of(record)
                    if letter.job_id == job.id:
                        told = Line(
                            at=record.timestamp,
                            origin="log",
                            source=source,
                            offset=record.offset,
                            event="dead-letter",
                            note=f"{letter.reason}: {letter.message}",
                        )
                        lines.append(told)
    return lines


def _related(relatives: Iterable[Relative], job_id: str) -> list[Line]:
    """What came of the job itself: what came of its retries happened to these."""
    return [
        Line(
            at=each.job.accepted_at,
            origin="log",
            source=each.job.source,
            offset=each.job.offset,
            event=each.relation,
            note=f"job {each.job.id} of {each.job.record['workerName']}, {each.status} now",
        )
        for each in relatives
        if each.relation == "child" or each.retry_of == job_id
    ]
