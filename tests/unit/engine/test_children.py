"""A job that enqueues others: each exists once, however many attempts the job takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace import AbstractWorker, Job, JobContext, JobRefused, Retry, WorkerEngine
from headrace.ports import NewRecord, TopicPartition
from headrace.testing import InMemoryLog
from support.duplicates import WINDOW
from support.log import eventually
from support.memory_engines import TOPICS, Bench, loop_clock, wall_clock
from support.virtual_time import in_virtual_time


class Leaf(AbstractWorker[dict[str, Any]]):
    """Notes down which jobs it did."""

    name = "leaf"

    def __init__(self) -> None:
        self.done: list[Job] = []

    async def run(self, args: dict[str, Any], ctx: JobContext) -> None:
        self.done.append(ctx.job)


class Tree(AbstractWorker[dict[str, Any]]):
    """Enqueues two equal leaves and another one, and fails until its third attempt."""

    name = "tree"
    seconds = 0.0

    def __init__(self) -> None:
        self.children: list[list[Job]] = []

    async def run(self, args: dict[str, Any], ctx: JobContext) -> None:
        made = [await ctx.enqueue("leaf", {"n": n}) for n in (1, 1, 2)]
        made.append(await ctx.enqueue(Leaf, {"n": 1}, {"userId": "bob"}, ordering_key="key"))
        self.children.append(made)
        if ctx.attempt < 3:
            raise Retry("once more", after=self.seconds)


class Trunk(AbstractWorker[dict[str, Any]]):
    """Does the same in a thread."""

    name = "tree"

    def __init__(self) -> None:
        self.children: list[Job] = []

    def run(self, args: dict[str, Any], ctx: JobContext) -> None:
        self.children += [ctx.enqueue_from_thread("leaf", {"n": 1}) for _ in range(2)]
        if ctx.attempt < 2:
            raise Retry("once more", after=0)


@asynccontextmanager
async def running(bench: Bench, *workers: AbstractWorker[Any], **clocks: Any) -> AsyncIterator[WorkerEngine]:
    engine = WorkerEngine(bench.settings, log=InMemoryLog(bench.cluster), **clocks)
    for worker in workers:
        engine.register_worker(worker)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.stop(grace_seconds=0)


def plant(bench: Bench) -> None:
    """Enqueues a tree for a tenant."""
    raw = {
        "schemaVersion": 1,
        "id": "a-tree",
        "tenant": "acme",
        "workerName": "tree",
        "createdAt": "2026-03-02T09:30:00.000Z",
        "args": {},
        "ctx": {"userId": "ann", "traceId": "t-9"},
    }
    bench.cluster.append(TopicPartition(TOPICS.jobs_name("tree"), 0), NewRecord(b"a-tree", orjson.dumps(raw)))


def leaves(bench: Bench) -> list[str]:
    """The ids in the queue of leaves; a record that repeats a job has its id."""
    return [orjson.loads(record.value or b"")["id"] for record in bench.cluster.topic_records(TOPICS.jobs_name("leaf"))]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, idempotency_window_seconds=WINDOW)


@in_virtual_time
async def test_a_second_attempt_makes_no_second_child(bench: Bench) -> None:
    tree, leaf = Tree(), Leaf()
    async with running(bench, tree, leaf, clock=loop_clock, now=wall_clock):
        plant(bench)
        await eventually(lambda: len(tree.children) == 3 and bench.statuses("a-tree")[-1] == "completed", "three attempts")
        await eventually(lambda: len(leaf.done) == 4, "the leaves")
        await asyncio.sleep(10)
    ids = [[child.id for child in children] for children in tree.children]
    assert ids[0] == ids[1] == ids[2]
    assert sorted(job.id for job in leaf.done) == sorted(ids[0])
    assert len(leaves(bench)) == 12, "the holder passes over what repeats a job"
    assert {job.tenant for job in leaf.done} == {"acme"}
    assert {job.parent_id for job in leaf.done} == {"a-tree"}
    contexts = [job.ctx.to_wire() for job in tree.children[0]]
    assert contexts == [{"userId": "ann", "traceId": "t-9"}] * 3 + [{"userId": "bob"}]
    assert tree.children[0][3].ordering_key == "key"


@in_virtual_time
async def test_an_attempt_long_after_the_first_makes_no_second_child(bench: Bench) -> None:
    """The holder of the leaves has forgotten them by then: the view of jobs knows them still."""
    tree, leaf = Tree(), Leaf()
    tree.seconds = 3 * WINDOW
    async with running(bench, tree, leaf, clock=loop_clock, now=wall_clock):
        plant(bench)
        await eventually(lambda: len(leaf.done) == 4, "the leaves")
        await asyncio.sleep(7 * WINDOW)
        await eventually(lambda: bench.statuses("a-tree")[-1] == "completed", "three attempts")
        await asyncio.sleep(10)
    assert len(tree.children) == 3
    assert len(leaf.done) == len(leaves(bench)) == 4


async def test_a_plain_function_enqueues_from_its_thread(bench: Bench) -> None:
    trunk, leaf = Trunk(), Leaf()
    async with running(bench, trunk, leaf):
        plant(bench)
        await eventually(lambda: len(trunk.children) == 4 and len(leaf.done) == 2, "two attempts, two leaves")
    assert [child.id for child in trunk.children[:2]] == [child.id for child in trunk.children[2:]]
    assert {job.id for job in leaf.done} == {child.id for child in trunk.children}


async def test_where_nobody_can_enqueue_the_call_says_so() -> None:
    tree = Tree()
    job = Job.model_validate(
        {
            "id": "a-tree",
            "workerName": "tree",
            "status": "running",
            "createdAt": "2026-03-02T09:30:00.000Z",
            "updatedAt": "2026-03-02T09:30:00.000Z",
        }
    )
    with pytest.raises(JobRefused, match="without an engine"):
        await tree.process_job(job)


async def test_the_event_loop_is_not_blocked(bench: Bench) -> None:
    class Mistaken(Tree):
        async def run(self, args: dict[str, Any], ctx: JobContext) -> None:
            ctx.enqueue_from_thread("leaf", {})

    async with running(bench, Mistaken(), Leaf()):
        plant(bench)
        await eventually(lambda: bench.statuses("a-tree")[-1:] == ["failed"], "its failure")
    assert "await enqueue()" in bench.written("a-tree")[-1]["error"]["message"]


async def test_a_child_that_nobody_would_await_is_not_left_out_in_silence(bench: Bench) -> None:
    class Mistaken(Trunk):
        def run(self, args: dict[str, Any], ctx: JobContext) -> None:
            ctx.enqueue("leaf", {})  # type: ignore[unused-coroutine]  # the mistake

    async with running(bench, Mistaken(), Leaf()):
        plant(bench)
        await eventually(lambda: bench.statuses("a-tree")[-1:] == ["failed"], "its failure")
    assert "enqueue_from_thread()" in bench.written("a-tree")[-1]["error"]["message"]
