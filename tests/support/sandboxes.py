"""What tests of sandboxes share: a worker, recorded jobs and what they make today, and what a namespace has."""

from __future__ import annotations

from typing import Any

from headrace import AbstractWorker, JobContext
from headrace.core.topics import Topic
from headrace.kafka.log import KafkaLog
from headrace.ports import Committed, GroupListener, TopicPartition
from headrace.replay.streams.pacing import Pacing
from headrace.replay.streams.stream import StreamReplay
from support.clusters import ClusterState
from support.engines import eventually
from support.recorded import ListedHistory, Today, everything, recorded_job

GONE_PROCESS = 2**22 + 1
"""More than Linux ever gives."""


class Count(AbstractWorker[dict[str, Any]]):
    name = "count"
    description = "Its jobs come to what the test says, and it is never called."

    async def run(self, args: dict[str, Any], ctx: JobContext) -> None:
        raise AssertionError("jobs are run again by what the test gave for it")


def of_namespace(state: ClusterState, namespace: str) -> list[str]:
    return [name for name in (*state.ends, *state.groups) if name.startswith(f"{namespace}.")]


def odd_fails(args: dict[str, Any]) -> int:
    if args["number"] % 2:
        raise ValueError("odd")
    return int(args["number"])


def replay_of(count: int, today: Today) -> StreamReplay:
    jobs = [recorded_job(number, key=f"k{number % 3}" if number % 2 else None) for number in range(count)]
    batches = [jobs[: count // 2], jobs[count // 2 :], [jobs[0]]]  # one was accepted twice
    return StreamReplay(ListedHistory(batches), today, everything(batches), Pacing(concurrency=10))


def plain(name: str) -> Topic:
    return Topic(name=name, partitions=1, configuration={"cleanup.policy": "delete"})


async def commit_as_another(log: KafkaLog, group: str, place: TopicPartition, offset: int) -> None:
    """A group that has no members any more, of an application that is none of headrace's, has read so far."""
    held: set[TopicPartition] = set()

    async def revoked(_: object) -> None:
        held.clear()

    member = log.group_consumer(place.topic, group, GroupListener(held.update, revoked))
    await member.start()
    try:

        async def has_it() -> bool:
            await member.fetch(timeout=0.05, maximum=1)
            return place in held

        await eventually(has_it)
        assert await member.commit({place: Committed(offset)})
    finally:
        await member.stop(timeout=5)
