"""What tests of sandboxes share: a worker, recorded jobs and what they make today, and what a namespace has."""

from __future__ import annotations

from typing import Any

from headrace import AbstractWorker, JobContext
from headrace.core.topics import Topic
from headrace.replay.pacing import Pacing
from headrace.replay.stream import StreamReplay
from support.clusters import ClusterState
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
