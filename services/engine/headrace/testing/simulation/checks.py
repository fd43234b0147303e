"""Whether a run kept what headrace promises: judged by the log, and by what the workers were seen to do."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from headrace.codec import decode
from headrace.core.identifiers import is_fresh
from headrace.core.records import pause_key
from headrace.core.snapshots import ISOLATED_FROM
from headrace.core.status import JobStatus
from headrace.core.topics import Topics
from headrace.models import CancelRequest
from headrace.ports import TopicPartition
from headrace.testing.simulation.chronicle import (
    Accepted,
    Calm,
    Committed,
    Event,
    Execution,
    Fate,
    NotAccepted,
    ProcessFate,
    Step,
    Written,
)
from headrace.testing.simulation.outcomes import MOST_CRASHES, Outcomes, is_given_up
from headrace.testing.simulation.reading import JobPlace, JobState, Reading, StateReader
from headrace.testing.simulation.releases import Releases
from headrace.testing.simulation.starts import Starts
from headrace.testing.storage import StoredRecord


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken."""

    at: float
    promise: str
    detail: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.detail} (at {self.at:.3f} s)"


@dataclass(slots=True, eq=False)
class _Attempt:
    """An attempt that has begun and not ended.

    Attributes:
        superseded: whether another attempt of its job has begun meanwhile.
        excused: whether it was told to stop at the first look that its thawed process took at its leases: it ends as it can.
    """

    process: str
    job_id: str
    token: tuple[int, int]
    superseded: bool = False
    excused: bool = False


@dataclass(slots=True)
class _Process:
    """Attributes: excused_until: what it does before that, it does before it can have looked at its leases."""

    runs: bool = True
    excused_until: float = -1.0


@dataclass(slots=True)
class _Job:
    """A record of the queue.

    Attributes:
        repeats: where the record stands that asked for the same job before.
        args: what the job is asked to do.
        parent_id: who enqueued it.
        needs_letter: whether the record has to stand in dead-letters before the watermark passes it.
    """

    place: JobPlace
    job_id: str | None
    key: str | None
    needs_letter: bool = False
    repeats: JobPlace | None = None
    args: Any = None
    parent_id: str | None = None


@dataclass(slots=True)
class Judge:
    """Takes in what happened, in its order, and notes which promises were broken.

    Attributes:
        reader: reads `job-state` in its order.
        after_thaw: steps that a thawed process did of attempts that others had taken over, before it could look at its leases.
        attempts: how many attempts began.
        not_accepted: ids whose sender was told for certain that they are not accepted.
        running: how many attempts each process has begun and not ended.
    """

    topics: Topics
    worker: str
    concurrency: int
    outcomes: Outcomes
    starts: Starts
    reader: StateReader = field(init=False)
    _ended_keys_topic: str = field(init=False)
    violations: list[Violation] = field(default_factory=list)
    after_thaw: int = 0
    attempts: int = 0
    not_accepted: set[str] = field(default_factory=set)
    running: Counter[str] = field(default_factory=Counter)
    _jobs: dict[JobPlace, _Job] = field(default_factory=dict)
    _by_id: dict[str, JobPlace] = field(default_factory=dict)
    _by_key: dict[tuple[int, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    _offsets: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    _dead_letters: set[JobPlace] = field(default_factory=set)
    _ended_keys: set[tuple[str, JobPlace]] = field(default_factory=set)
    _begun: set[tuple[JobPlace, tuple[int, int]]] = field(default_factory=set)
    _live: dict[str, list[_Attempt]] = field(default_factory=lambda: defaultdict(list))
    _processes: dict[str, _Process] = field(default_factory=lambda: defaultdict(_Process))
    _watermarks: Counter[int] = field(default_factory=Counter)
    _requests: dict[bytes, JobPlace] = field(default_factory=dict)
    _cancelled: dict[JobPlace, int] = field(default_factory=dict)
    _releases: Releases = field(default_factory=Releases)

    def __post_init__(self) -> None:
        self.reader = StateReader(self.worker)
        self._ended_keys_topic = self.topics.ended_keys(1).name

    def take(self, events: Iterable[Event]) -> None:
        """Takes in what happened next."""
        for event in events:
            match event:
                case Written(at, record):
                    self._written(at, record)
                case Execution():
                    self._executed(event)
                case Committed(at, partition, offset):
                    self._committed(at, partition, offset)
                case ProcessFate(_, name, fate, excused_until):
                    process = self._processes[name]
                    process.runs, process.excused_until = fate is Fate.THAWED, excused_until
                case Accepted(at, job_id):
                    if job_id not in self._by_id:
                        self._violated(at, "one write accepts a job", f"{job_id} was accepted, and is not in the queue")
                case Calm(at):
                    self.starts.calm(at)
                case NotAccepted(_, job_id):
                    self.not_accepted.add(job_id)

    @property
    def jobs(self) -> int:
        """How many records there are in the queue, those apart that repeat another."""
        return sum(job.repeats is None for job in self._jobs.values())

    def unfinished(self) -> list[JobPlace]:
        """The records of the queue that have not ended."""
        return [place for place in self._jobs if not self._is_settled(place)]

    def conclude(self, at: float) -> None:
        """The run is over, and there was time enough for all jobs to end."""
        for place in self.unfinished():
            state = self.reader.jobs.get(place)
            self._violated(at, "an accepted job ends", f"{self._name(place)} is {state.status if state else 'queued'}")
        self._conclude_children(at)
        for job_id in sorted(self.not_accepted & self._by_id.keys()):
            self._violated(at, "one write accepts a job", f"{job_id} was said not to be accepted, and is in the queue")

    def _conclude_children(self, at: float) -> None:
        children: dict[str, set[str]] = defaultdict(set)
        for job in self._jobs.values():
            if job.parent_id is not None and job.job_id is not None:
                children[job.parent_id].add(job.job_id)
        for parent_id, ids in sorted(children.items()):
            asked_for = self._jobs[self._by_id[parent_id]].args["children"]
            if len(ids) > asked_for:
                self._violated(at, "a child exists once", f"{parent_id} has {len(ids)} children, and asked for {asked_for}")

    # --- the log --------------------------------------------------------------------------------------------------------

    def _written(self, at: float, record: StoredRecord) -> None:
        if record.topic == self.topics.jobs_name(self.worker):
            self._enqueued(record)
        elif record.topic == self.topics.dead_letters.name:
            headers = dict(record.headers)
            self._dead_letters.add((int(headers["headrace-partition"]), int(headers["headrace-offset"])))
        elif record.topic == self.topics.control.name:
            self._asked(at, record)
        elif record.topic == self._ended_keys_topic:
            self._told(at, record)
        elif record.topic == self.topics.job_state.name:
            for promise, what in (*self.starts.written(at, record), *self._releases.written(record)):
                self._violated(at, promise, what)
            reading = self.reader.read(record)
            if reading.place is not None and reading.repeated:
                self._repeated(at, reading.place, reading)
            elif reading.place is not None and not reading.void:
                self._stated(at, reading.place, reading, record.value or b"")
                self._check_deaths(at, reading.place, reading)

    def _told(self, at: float, record: StoredRecord) -> None:
        """An entry in `ended-keys`. Whoever wrote it held a lease when it knew of the job's end: so that counts."""
        entry = orjson.loads(record.value or b"")
        place = entry["partition"], entry["offset"]
        self._ended_keys.add((entry["id"], place))
        if not self._has_ended(place):
            self._violated(at, "what is told of as ended has ended", f"{self._name(place)} has not, and is in ended-keys")

    def _asked(self, at: float, record: StoredRecord) -> None:
        """Somebody cancels a job: whoever claims its partition from now on must know of it before it takes in any job."""
        key = record.key or b""
        if key == pause_key(self.worker):
            self.starts.asked(at, record, {number: ledger.epoch for number, ledger in self.reader.ledgers.items()})
            return
        if record.value is None:
            place = self._requests.get(key)
            if place is not None and not self._has_ended(place):
                self._violated(at, "a cancellation stands until its job has ended", f"it does not for {self._name(place)}")
            return
        request = decode(CancelRequest, record.value)
        place = self._requests[key] = request.source.partition, request.source.offset
        self._cancelled.setdefault(place, self.reader.newest_epoch(place[0]))

    def _enqueued(self, record: StoredRecord) -> None:
        place = record.partition, record.offset
        self._offsets[record.partition].append(record.offset)
        try:
            raw = orjson.loads(record.value or b"")
            first = self._by_id.get(raw["id"])
            # No other arguments may have the id of a job that there is, and none are less than nothing.
            wrong = raw["args"]["seconds"] < 0 or (first is not None and raw["args"] != self._jobs[first].args)
            job = _Job(place, raw["id"], raw.get("orderingKey"), wrong, first, raw["args"], raw.get("parentId"))
        except (orjson.JSONDecodeError, KeyError):
            job = _Job(place, None, None, needs_letter=True)
        self._jobs[place] = job
        if job.job_id is not None:
            self._by_id.setdefault(job.job_id, place)
        if job.key is not None:
            self._by_key[record.partition, job.key].append(record.offset)

    def _stated(self, at: float, place: JobPlace, reading: Reading, value: bytes) -> None:
        version, before = reading.version, reading.before
        assert version is not None
        name = self._name(place)
        if self._is_duplicate(place):
            self._violated(at, "the same request is the same job", f"{name} repeats a job, and was written as {reading.status}")
        if version.epoch not in self.reader.epochs.get(place[0], ()):
            self._violated(
                at, "only the holder writes of a job", f"{name} was written under {version.epoch}, which is no valid claim"
            )
        if before is not None and before.has_ended:
            self._violated(at, "a finished job is never run again", f"{name} was {before.status}, and then {reading.status}")
        if reading.state is None:
            return
        self._check_cancelled(at, place, reading.status, version.epoch)
        self._check_outcome(at, place, reading.status, value)
        if reading.status != JobStatus.RUNNING:
            return
        self._begun.add((place, (version.epoch, version.attempt)))
        if before is not None and version.attempt <= before.version.attempt:
            self._violated(at, "the number of an attempt rises", f"{name} began attempt {version.attempt} twice")
        self._check_order(at, place, "was begun in the log")

    def _check_outcome(self, at: float, place: JobPlace, status: str, value: bytes) -> None:
        for promise, what in self.outcomes.stated(place, status, value):
            self._violated(at, promise, f"{self._name(place)}: {what}")
        # However it ends, what three processes died of is told; what was given up beside ten engines, too.
        if self.reader.jobs[place].crashes >= MOST_CRASHES or (status == JobStatus.FAILED and is_given_up(orjson.loads(value))):
            self._jobs[place].needs_letter = True

    def _check_cancelled(self, at: float, place: JobPlace, status: str, epoch: int) -> None:
        asked = self._cancelled.get(place)
        if status == JobStatus.CANCELLED:
            if asked is None:
                self._violated(at, "only a request cancels a job", f"nobody asked for the end of {self._name(place)}")
        elif asked is not None and epoch > asked:
            detail = f"{self._name(place)} became {status} under {epoch}, which was claimed after it was cancelled"
            self._violated(at, "a new owner knows what was cancelled", detail)

    def _check_deaths(self, at: float, place: JobPlace, reading: Reading) -> None:
        if (what := reading.miscounted) is not None:
            self._violated(at, "each death is counted once", f"{self._name(place)} {what}")

    def _repeated(self, at: float, place: JobPlace, reading: Reading) -> None:
        before = reading.before
        if reading.state is not None and (before is None or before.version != reading.version):
            detail = f"{self._name(place)} was {before.status if before else 'queued'}, and {reading.status} by a repeat"
            self._violated(at, "the janitor writes nothing new", detail)

    def _check_order(self, at: float, place: JobPlace, what: str) -> None:
        job = self._jobs.get(place)
        if job is None or job.key is None:
            return
        for offset in self._by_key[place[0], job.key]:
            if offset < place[1] and not self._has_ended((place[0], offset)):
                earlier = self._name((place[0], offset))
                self._violated(at, "order by key", f"{self._name(place)} {what} before {earlier} of {job.key} had ended")

    def _committed(self, at: float, partition: TopicPartition, offset: int) -> None:
        if partition.topic != self.topics.jobs_name(self.worker):
            return
        number, offsets = partition.partition, self._offsets[partition.partition]
        for each in offsets[bisect_left(offsets, self._watermarks[number]) : bisect_left(offsets, offset)]:
            if not self._is_settled((number, each)):
                self._violated(at, "the watermark passes no unfinished job", f"{self._name((number, each))} is below {offset}")
            elif not self._is_told((number, each)):
                self._violated(at, "what has ended is remembered", f"{self._name((number, each))} is not in ended-keys")
        self._watermarks[number] = max(self._watermarks[number], offset)

    def _has_ended(self, place: JobPlace) -> bool:
        if self._is_duplicate(place):
            return True  # it is no job of its own
        state: JobState | None = self.reader.jobs.get(place)
        return place in self._dead_letters if self._jobs[place].job_id is None else state is not None and state.has_ended

    def _is_settled(self, place: JobPlace) -> bool:
        """Whether nothing is left to do of a record: its job has ended, and what has to be in dead-letters is there."""
        return self._has_ended(place) and (not self._jobs[place].needs_letter or place in self._dead_letters)

    def _is_duplicate(self, place: JobPlace) -> bool:
        return place in self._jobs and self._jobs[place].repeats is not None

    def _is_told(self, place: JobPlace) -> bool:
        """Whether `ended-keys` has a job that has ended, or need not have it."""
        job = self._jobs[place]
        return job.job_id is None or is_fresh(job.job_id) or job.repeats is not None or (job.job_id, place) in self._ended_keys

    # --- what workers did -------------------------------------------------------------------------------------------------

    def _executed(self, event: Execution) -> None:
        if event.step is Step.STARTED:
            self._started(event)
            return
        live = self._live[event.job_id]
        mine = next((each for each in live if each.process == event.process and each.token == event.token), None)
        if mine is None:
            return
        if event.step is Step.ENDED:
            live.remove(mine)
            self.running[event.process] -= 1
        elif event.step is Step.STOPPED:
            mine.excused = event.at <= self._processes[event.process].excused_until
        elif mine.superseded:
            if event.at <= self._processes[event.process].excused_until:
                self.after_thaw += 1
            else:
                detail = f"{event.job_id} went on in {event.process} as {event.token} after another attempt of it had begun"
                self._violated(event.at, "one attempt runs at a time", detail)

    def _started(self, event: Execution) -> None:
        self.attempts += 1
        place = self._by_id[event.job_id]
        name = f"{self._name(place)}, attempt {event.token} in {event.process},"
        if (place, event.token) not in self._begun:
            self._violated(event.at, "`running` comes first", f"{name} started and is not written down")
        crashes = self.reader.jobs[place].crashes if place in self.reader.jobs else 0
        if crashes >= MOST_CRASHES or (crashes >= ISOLATED_FROM and not event.apart):
            self._violated(event.at, "a poison job falls alone", f"{name} started after {crashes} deaths")
        if self._has_ended(place):
            self._violated(event.at, "a finished job is never run again", f"{name} started after the job had ended")
        for other in self._live[event.job_id]:
            if other.excused:
                self.after_thaw += 1
            elif self._is_awake(other.process, event.at):
                detail = f"{name} started while {other.token} ran in {other.process}"
                self._violated(event.at, "one attempt runs at a time", detail)
            other.superseded = True
        self._check_order(event.at, place, "started")
        for promise, what in (*self.outcomes.started(event.at, place), *self.starts.started(event.at, place[0], event.token[0])):
            self._violated(event.at, promise, f"{name} {what}")
        self.running[event.process] += 1
        if self.running[event.process] > self.concurrency:
            self._violated(event.at, "as many at a time as its worker allows", f"{name} is one too many")
        self._live[event.job_id].append(_Attempt(event.process, event.job_id, event.token))

    def _is_awake(self, name: str, at: float) -> bool:
        process = self._processes[name]
        return process.runs and at > process.excused_until

    def _name(self, place: JobPlace) -> str:
        job = self._jobs.get(place)
        return f"job {job.job_id if job else None} at {place[0]}/{place[1]}"

    def _violated(self, at: float, promise: str, detail: str) -> None:
        self.violations.append(Violation(at, promise, detail))
