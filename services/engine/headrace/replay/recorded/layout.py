"""Where the jobs of workers stand in the log, and where their state does."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from headrace.core.partitions import state_partition
from headrace.core.topics import Topics
from headrace.errors import WorkerUnknown
from headrace.ports import Log, TopicPartition
from headrace.replay.recorded.scanning import reading


class Part(NamedTuple):
    """A partition of `job-state`, and those partitions of queues whose jobs' state stands in it.

    Attributes:
        state: None where there is no such topic: then no engine has written of any job.
    """

    state: TopicPartition | None
    queues: tuple[TopicPartition, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """The queues of workers, and their partitions, by the partition of `job-state`.

    Attributes:
        topics: of the namespace.
        parts: each queue stands in one of them.
    """

    topics: Topics
    parts: Sequence[Part]

    @property
    def queues(self) -> list[TopicPartition]:
        """All partitions of queues."""
        return [queue for part in self.parts for queue in part.queues]

    @property
    def states(self) -> list[TopicPartition]:
        """The partitions of `job-state` with the state of these queues' jobs."""
        return [part.state for part in self.parts if part.state is not None]

    def worker_of(self, queue: TopicPartition) -> str:
        """The worker whose queue it is."""
        worker = self.topics.worker_of(queue.topic)
        assert worker is not None
        return worker

    def part_of(self, queue: TopicPartition) -> Part:
        """The queue alone, with the partition of its jobs' state."""
        return next(Part(part.state, (queue,)) for part in self.parts if queue in part.queues)


async def read_layout(log: Log, topics: Topics, workers: Collection[str] = ()) -> Layout:
    """The queues that there are, of these workers, or of all. No topic is made.

    Raises:
        WorkerUnknown: a worker has no queue; the message names those that have had jobs.
        BrokerError: the brokers cannot be reached.
    """
    existing = await log.topic_names()
    known = {worker: name for name in sorted(existing) if (worker := topics.worker_of(name)) is not None}
    if unknown := sorted(set(workers) - known.keys()):
        there_are = ", ".join(sorted(await _with_jobs(log, known))) or "none yet"
        raise WorkerUnknown(
            f"Nothing is recorded of a worker named {unknown[0]!r} in the namespace {topics.namespace}. "
            f"Recorded are jobs of: {there_are}."
        )
    state = topics.job_state.name
    count = await log.partition_count(state) if state in existing else 0
    parts: dict[TopicPartition | None, list[TopicPartition]] = {}
    for worker in workers or known:
        for number in range(await log.partition_count(known[worker])):
            place = TopicPartition(state, state_partition(worker, number, count)) if count else None
            parts.setdefault(place, []).append(TopicPartition(known[worker], number))
    return Layout(topics, [Part(place, tuple(queues)) for place, queues in parts.items()])


async def _with_jobs(log: Log, queues: Mapping[str, str]) -> set[str]:
    """Those of the workers, given with the names of their queues, that have ever had a job."""
    counts = {worker: await log.partition_count(queue) for worker, queue in queues.items()}
    workers = {TopicPartition(queues[worker], number): worker for worker, count in counts.items() for number in range(count)}
    if not workers:
        return set()
    async with reading(log) as reader:
        ends = await reader.end_offsets(workers.keys())
    return {workers[queue] for queue, end in ends.items() if end}


def described(layout: Layout, workers: Collection[str]) -> str:
    """The queues in words, for messages."""
    return f"of the namespace {layout.topics.namespace}" if not workers else f"of {', '.join(sorted(workers))}"


Bounds = Mapping[TopicPartition, tuple[int, int]]
"""The first offset that is read of each partition, and the one before which reading ends."""
