"""Which workers have recorded jobs, and how many in a span, by their queues alone: of workers whose jobs nobody runs again."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from headrace.core.topics import Topics
from headrace.ports import Log, LogReader, TopicPartition
from headrace.reading import unplaced_between
from headrace.replay.history import Wanted
from headrace.replay.recorded.joining import job_record_of
from headrace.replay.recorded.layout import read_layout
from headrace.replay.recorded.scanning import reading, side_by_side
from headrace.replay.recorded.spans import bounds_of


async def recorded_workers(log: Log, topics: Topics) -> frozenset[str]:
    """The workers that have ever had a job, whatever is left of it.

    Raises:
        BrokerError: the brokers cannot be used.
    """
    layout = await read_layout(log, topics)
    if not layout.queues:
        return frozenset()
    async with reading(log) as reader:
        ends = await reader.end_offsets(layout.queues)
    return frozenset(layout.worker_of(queue) for queue, end in ends.items() if end)


async def count_accepted(log: Log, topics: Topics, wanted: Wanted) -> Counter[str]:
    """How many jobs that were accepted in the span are left of each worker, whatever their fields are.

    Their state is not read. A request that was made again within the span counts once.

    Raises:
        WorkerUnknown: one of the workers has no queue.
        BrokerError: the brokers cannot be used.
    """
    layout = await read_layout(log, topics, wanted.workers)
    async with reading(log) as reader:
        bounds = await bounds_of(reader, layout.queues, wanted.span)
    queues: defaultdict[str, list[TopicPartition]] = defaultdict(list)
    for queue in bounds:
        queues[layout.worker_of(queue)].append(queue)

    async def count(reader: LogReader, work: tuple[str, Sequence[TopicPartition]]) -> AsyncGenerator[tuple[str, int]]:
        worker, own = work
        start, end = wanted.span
        ids: set[str] = set()
        async with aclosing(unplaced_between(reader, {queue: bounds[queue] for queue in own})) as batches:
            async for _, records in batches:
                for record in records:
                    if start <= record.timestamp < end and (raw := job_record_of(record, worker)) is not None:
                        ids.add(raw["id"])
        yield worker, len(ids)

    async with aclosing(side_by_side(log, list(queues.items()), count)) as counts:
        return Counter({worker: jobs async for worker, jobs in counts if jobs})
