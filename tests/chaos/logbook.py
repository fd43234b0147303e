"""What the log says of a run's jobs: their records in the queues, how they stand by the rules of `job-state`, dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from chaos.verdict import LogFacts, Outcome, Queued
from headrace.core.status import TERMINAL
from headrace.core.topics import Topics
from headrace.dead_letters.letters import dead_letter_of
from headrace.kafka.log import KafkaLog
from headrace.ports import LogReader, Record, TopicPartition
from headrace.settings import Settings
from headrace.testing.simulation.reading import JobPlace, StateReader

FETCH_SECONDS = 0.5


@dataclass(slots=True)
class LogBook:
    """Takes in the records of queues, of `job-state` and of `dead-letters`, each partition in its order.

    Attributes:
        begun_again: what was written of jobs after they had ended, by whoever held their partition then.
        given_up: jobs that are dead letters since they took too many processes with them.
    """

    topics: Topics
    workers: Iterable[str]
    queued: list[Queued] = field(default_factory=list)
    begun_again: list[str] = field(default_factory=list)
    given_up: set[str] = field(default_factory=set)
    _readers: dict[str, StateReader] = field(default_factory=dict)
    _snapshots: dict[tuple[str, JobPlace], bytes] = field(default_factory=dict)
    _open: set[tuple[str, JobPlace]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._readers = {worker: StateReader(worker) for worker in self.workers}

    def take(self, record: Record) -> None:
        """Takes in the next record of its partition."""
        if record.topic == self.topics.job_state.name:
            for worker, reader in self._readers.items():
                self._state(worker, reader, record)
        elif record.topic == self.topics.dead_letters.name:
            letter = dead_letter_of(record)
            if letter.reason == "poison" and letter.job_id is not None:
                self.given_up.add(letter.job_id)
        elif (worker_name := self.topics.worker_of(record.topic)) is not None:
            raw = orjson.loads(record.value or b"null")
            self.queued.append(Queued(raw["id"], worker_name, record.partition, record.offset, raw.get("orderingKey")))
            place = worker_name, (record.partition, record.offset)
            state = self._readers[worker_name].jobs.get(place[1])
            if state is None or not state.has_ended:
                self._open.add(place)

    def _state(self, worker: str, reader: StateReader, record: Record) -> None:
        reading = reader.read(record)
        if reading.place is None:
            return
        place = worker, reading.place
        if reading.state is not None and record.value is not None:
            self._snapshots[place] = record.value
            if reading.state.has_ended:
                self._open.discard(place)
        if reading.void or reading.version is None or reading.before is None or reading.status in TERMINAL:
            return
        # An older snapshot may be repeated at any time, and says nothing new.
        if reading.before.has_ended and reading.version > reading.before.version:
            self.begun_again.append(
                f"{worker} {reading.place}: {reading.before.status} under {reading.before.version}, "
                f"and then {reading.status} under {reading.version}"
            )

    def unfinished(self) -> int:
        """How many records have no end yet. A duplicate that was passed over has none of its own."""
        done = {record.job for record in self.queued if (record.worker, (record.partition, record.offset)) not in self._open}
        return len({record.job for record in self.queued} - done)

    def facts(self) -> LogFacts:
        """What it says by now."""
        outcomes: dict[str, Outcome] = {}
        for record in self.queued:
            value = self._snapshots.get((record.worker, (record.partition, record.offset)))
            if value is None:
                continue
            outcome = _outcome(orjson.loads(value))
            known = outcomes.get(record.job)
            if known is None or not known.has_ended:
                outcomes[record.job] = outcome
        return LogFacts(self.queued, outcomes, self.begun_again, self._done_twice(), frozenset(self.given_up))

    def _done_twice(self) -> list[str]:
        """Jobs of which several records have a state. What repeats a job gets none: not even that it has failed."""
        places: dict[str, list[str]] = {}
        for record in self.queued:
            value = self._snapshots.get((record.worker, (record.partition, record.offset)))
            if value is not None:
                status = _outcome(orjson.loads(value)).status
                places.setdefault(record.job, []).append(f"{status} at {record.worker} {record.partition}/{record.offset}")
        return [f"{job}: {', and '.join(stated)}" for job, stated in places.items() if len(stated) > 1]


def _outcome(snapshot: dict[str, Any]) -> Outcome:
    return Outcome(snapshot["status"], {each["attempt"]: each["status"] for each in snapshot.get("attempts", [])})


class Follower:
    """Reads a run's topics from their start on."""

    def __init__(self, settings: Settings, workers: Iterable[str]) -> None:
        topics = Topics(settings.namespace)
        self.book = LogBook(topics, tuple(workers))
        self._log = KafkaLog(settings)
        self._reader: LogReader = self._log.reader()
        # A job's record is known before what became of it.
        self._names = [
            *(topics.jobs_name(worker) for worker in self.book.workers),
            topics.dead_letters.name,
            topics.job_state.name,
        ]

    async def start(self) -> None:
        await self._reader.start()
        partitions = [
            TopicPartition(name, number) for name in self._names for number in range(await self._reader.partitions(name))
        ]
        await self._reader.assign(dict.fromkeys(partitions, 0))

    async def stop(self) -> None:
        await self._reader.stop()
        await self._log.close()

    async def catch_up(self) -> None:
        """Reads up to what stands in the log now."""
        positions = await self._reader.positions()
        ends = await self._reader.end_offsets(list(positions))
        while any(positions[partition] < end for partition, end in ends.items()):
            for records in (await self._reader.fetch(timeout=FETCH_SECONDS)).values():
                for record in records:
                    self.book.take(record)
            await asyncio.sleep(0)
            positions = await self._reader.positions()
