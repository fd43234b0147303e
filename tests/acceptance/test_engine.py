"""An engine on the real broker: jobs run, fail, are refused, wait for their key, and never pile up."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest
from pydantic import BaseModel

from headrace import (
    AbstractWorker,
    ArgumentsInvalid,
    BrokerError,
    Client,
    ConfigurationError,
    JobContext,
    PayloadTooLarge,
    Settings,
    WorkerDefinition,
    WorkerEngine,
    WorkerUnknown,
    worker,
)
from headrace.core.snapshots import NOT_ACCEPTED
from headrace.core.topics import Topics
from headrace.kafka.log import KafkaLog
from headrace.ports import NewRecord, TopicPartition
from support.engines import committed, ended, engine_with, eventually, read_all, snapshots_of, with_engine

HOWS = ("exit", "cancel", "object", "large", "surrogate", "mute", "base")
SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"


class Numbers(BaseModel):
    number: int
    key: str | None = None


class Square(AbstractWorker[Numbers]):
    name = "square"
    description = "Squares a number."
    category = "test"

    async def run(self, args: Numbers, ctx: JobContext) -> dict[str, int]:
        if args.number < 0:
            raise ValueError(f"{args.number} is negative")
        return {"square": args.number**2, "attempt": ctx.attempt}


@worker(category="test")
def in_a_thread(args: Numbers, ctx: JobContext) -> dict[str, Any]:
    """Says in which thread it runs."""
    return {"main": threading.current_thread() is threading.main_thread(), "job": ctx.job.id}


async def test_jobs_run_and_their_state_is_in_the_log(settings: Settings) -> None:
    async with engine_with(settings, Square, in_a_thread) as engine, Client(settings) as client:
        job = await engine.enqueue("square", {"number": 7}, {"userId": "u1", "conversationId": "c1", "source": "test"})
        assert (job.status, job.worker_name, job.args) == ("queued", "square", {"number": 7})
        done = await ended(client, job)
        assert (done.status, done.result, done.attempt) == ("completed", {"square": 49, "attempt": 1}, 1)
        assert done.ctx.user_id == "u1"
        assert done.created_at <= done.started_at <= done.finished_at  # type: ignore[operator]
        threaded = await ended(client, await client.enqueue(in_a_thread, Numbers(number=1)))
        assert threaded.result == {"main": False, "job": threaded.id}
        listed = await engine.list_jobs(user_id="u1")
        assert [each.id for each in listed.jobs] == [job.id]

        async def both_are_live() -> bool:
            live = {each.name: each.live_instances for each in await engine.list_workers()}
            return live == {"square": 1, "in_a_thread": 1}

        await eventually(both_are_live)
    written = await snapshots_of(settings, job.id)
    assert [(each["status"], each["sequence"]) for each in written] == [("running", 1), ("completed", 2)]
    claims = [r for r in await read_all(settings, Topics(settings.namespace).job_state) if (r.key or b"").startswith(b"lease/")]
    epochs = {(r.partition, r.offset) for r in claims}
    states = await read_all(settings, Topics(settings.namespace).job_state)
    of_the_job = next(r for r in states if r.key == job.id.encode())
    assert (of_the_job.partition, written[0]["epoch"]) in epochs, "the epoch of a record is the offset of a claim"


async def test_an_exception_makes_the_job_fail_with_type_message_and_traceback(settings: Settings) -> None:
    async with engine_with(settings, Square) as engine, Client(settings) as client:
        failed = await ended(client, await engine.enqueue("square", {"number": -3}))
        good = await ended(client, await engine.enqueue("square", {"number": 3}))
    assert (failed.status, good.status) == ("failed", "completed")
    assert failed.error is not None
    assert (failed.error.type, failed.error.message) == ("ValueError", "-3 is negative")
    assert "test_engine.py" in (failed.error.traceback or "")
    assert failed.attempts[-1].status == "failed"


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Base(BaseException):
    """What `except Exception` does not see."""


class Unruly(AbstractWorker[dict[str, Any]]):
    name = "unruly"

    async def run(self, args: dict[str, Any], ctx: JobContext) -> Any:
        match args["how"]:
            case "exit":
                raise SystemExit(3)
            case "cancel":
                raise asyncio.CancelledError
            case "object":
                return object()
            case "large":
                return "x" * 600_000
            case "surrogate":
                raise ValueError("\ud800")
            case "mute":
                raise Mute
            case "base":
                raise Base("unusual")
        return args["how"]


async def test_a_job_that_misbehaves_costs_itself_alone(settings: Settings) -> None:
    async with engine_with(settings, Unruly) as engine, Client(settings) as client:
        jobs = {how: await engine.enqueue("unruly", {"how": how}) for how in HOWS}
        outcomes = {how: await ended(client, job) for how, job in jobs.items()}
        assert {how: job.status.value for how, job in outcomes.items()} == dict.fromkeys(jobs, "failed")
        assert outcomes["large"].error and outcomes["large"].error.type.endswith("ResultTooLarge")
        assert outcomes["object"].error and outcomes["object"].error.type.endswith("ResultInvalid")
        assert (await ended(client, await engine.enqueue("unruly", {"how": "well"}))).result == "well"


async def test_bad_records_go_to_dead_letters_and_the_next_job_runs(settings: Settings) -> None:
    topics = Topics(settings.namespace)
    queue = topics.jobs_name("square")
    async with engine_with(with_engine(settings, commit_interval_seconds=0.1), Square) as engine, Client(settings) as client:
        good = {"schemaVersion": 1, "createdAt": "2026-01-01T00:00:00Z", "args": {"number": 1}, "ctx": {"userId": "u"}}
        bad = {
            "not JSON": b"\xff\xfe nonsense",
            "no object": b"[1, 2]",
            "tombstone": None,
            "no args": orjson.dumps({**good, "id": "job-no-args", "workerName": "square", "args": None}),
            "from the future": orjson.dumps({**good, "id": "job-future", "workerName": "square", "schemaVersion": 99}),
            "unknown worker": orjson.dumps({**good, "id": "job-unknown", "workerName": "cube"}),
            "key of a lease": orjson.dumps({**good, "id": "lease/square/0/x", "workerName": "square"}),
            "much too large": orjson.dumps({**good, "id": "job-large", "workerName": "square", "args": {"x": "y" * 1_100_000}}),
            "nonsense at the limit": b"x" * 2_096_000,
            "much wrong": orjson.dumps(
                {**good, "id": "job-much", "workerName": "square", "args": {"number": {}, "key": ["x"] * 9}}
            ),
            "no time": orjson.dumps({**good, "id": "job-time", "workerName": "square", "createdAt": 1_767_225_600}),
            "bad arguments": orjson.dumps({**good, "id": "job-arguments", "workerName": "square", "args": {"number": "x"}}),
        }
        log = KafkaLog(settings)
        writer = log.writer()
        await writer.start()
        for what, value in bad.items():
            await writer.append(TopicPartition(queue, 0), NewRecord(what.encode(), value, [("own", b"header")]), timeout=10)
        lies = {**dict.fromkeys(sorted(NOT_ACCEPTED), "a lie"), "status": "completed", "attempts": [{}]}
        after = orjson.dumps({**lies, **good, "id": "job-after", "workerName": "square"})
        await writer.append(TopicPartition(queue, 0), NewRecord(b"after", after), timeout=10)
        await writer.stop(timeout=5)
        await log.close()

        async def all_failed() -> bool:
            failed = {job.id for job in (await client.list_jobs(status="failed")).jobs}
            return failed == {"job-no-args", "job-future", "job-unknown", "job-arguments", "job-large", "job-much", "job-time"}

        await eventually(all_failed)
        ran = await ended(client, await eventually(lambda: client.get_job("job-after")))
        assert (ran.status, ran.result, ran.progress) == ("completed", {"square": 1, "attempt": 1}, None)
        assert not NOT_ACCEPTED & (ran.model_extra or {}).keys()
        undated = await client.get_job("job-time")
        assert undated is not None and undated.created_at.year >= 2026, "the time of the record itself"

        async def watermark_moved_on() -> bool:
            return (await committed(settings, "square")).get(0) == len(bad) + 1

        await eventually(watermark_moved_on)
        assert engine.statistics["square"].ended >= 1
    letters = {record.key: record for record in await read_all(settings, topics.dead_letters)}
    cut = letters.pop(b"nonsense at the limit")
    assert cut.value == bad.pop("nonsense at the limit")[:1_900_000]  # type: ignore[index]
    assert dict(cut.headers)["headrace-cut-from-bytes"] == b"2096000"
    assert {key: record.value for key, record in letters.items()} == {what.encode(): value for what, value in bad.items()}
    reasons = {key.decode(): dict(record.headers)["headrace-reason"].decode() for key, record in letters.items() if key}
    assert reasons == {
        "not JSON": "undecodable",
        "no object": "undecodable",
        "tombstone": "undecodable",
        "no args": "undecodable",
        "from the future": "undecodable",
        "unknown worker": "worker_unknown",
        "key of a lease": "undecodable",
        "much too large": "undecodable",
        "no time": "undecodable",
        "much wrong": "arguments_invalid",
        "bad arguments": "arguments_invalid",
    }
    for letter in letters.values():
        written = {name: value.decode() for name, value in letter.headers if name.startswith("headrace-")}
        jsonschema.validate(written, orjson.loads((SCHEMAS / "dead-letter-headers.json").read_bytes()))
    headers = dict(letters[b"bad arguments"].headers)
    assert headers["own"] == b"header" and b"number" in headers["headrace-message"]
    assert (headers["headrace-topic"], headers["headrace-offset"]) == (queue.encode(), b"11")


class InOrder(AbstractWorker[Numbers]):
    name = "in_order"
    order_by = ("key",)

    def __init__(self) -> None:
        self.running: dict[str | None, int] = {}
        self.seen: dict[str | None, list[int]] = {}
        self.most = 0
        self.gate = asyncio.Event()

    async def run(self, args: Numbers, ctx: JobContext) -> None:
        self.running[args.key] = self.running.get(args.key, 0) + 1
        self.seen.setdefault(args.key, []).append(args.number)
        self.most = max(self.most, sum(self.running.values()))
        assert args.key is None or self.running[args.key] == 1, "two jobs of one key at a time"
        await self.gate.wait()
        await asyncio.sleep(0)
        self.running[args.key] -= 1


async def test_order_by_key_and_side_by_side_across_keys(settings: Settings) -> None:
    in_order = InOrder()
    one_partition = with_engine(settings, partitions=1)
    async with engine_with(one_partition, in_order) as engine, Client(one_partition) as client:
        keyed = await client.enqueue_many(in_order, [{"number": n, "key": f"k{n % 3}"} for n in range(60)])
        free = await client.enqueue_many(in_order, [{"number": n} for n in range(50)])

        async def all_that_may_run() -> bool:
            return sum(in_order.running.values()) == 3 + 50

        await eventually(all_that_may_run)
        in_order.gate.set()
        for job in (*keyed, *free):
            assert (await ended(client, job)).status == "completed"
        assert engine.statistics["in_order"].ended == 110
    assert all(in_order.seen[f"k{k}"] == [n for n in range(60) if n % 3 == k] for k in range(3))
    assert in_order.most >= 53, "one partition is no limit to what runs side by side"


class Slow(AbstractWorker[Numbers]):
    name = "slow"
    concurrency = 4

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.most = self.now = 0

    async def run(self, args: Numbers, ctx: JobContext) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await self.gate.wait()
        self.now -= 1


async def test_intake_holds_no_more_than_there_is_room_for(settings: Settings) -> None:
    slow = Slow()
    small = with_engine(settings, partitions=2, buffer_per_partition=20)
    async with engine_with(small, slow) as engine, Client(small) as client:
        await client.enqueue_many(slow, [{"number": n} for n in range(3000)])

        async def full() -> bool:
            return engine.statistics["slow"].fetched >= 40 and slow.now == 4

        await eventually(full)
        # Jobs that are enqueued and seen by others meanwhile make no difference: there is no room.
        for number in range(20):
            other = await client.enqueue(slow, {"number": number})
            assert await client.get_job(other.id) is not None
        # One fetch may bring up to 500 records for a partition that had room; after that it gets no more.
        assert engine.statistics["slow"].fetched <= 2 * (20 + 500)
        slow.gate.set()

        async def drained() -> bool:
            return engine.statistics["slow"].ended == 3020

        await eventually(drained)
    assert slow.most == 4, "no more at a time than the worker's concurrency"


class Names(BaseModel):
    names: list[int]


@worker(name="counts")
async def counts(args: Names, ctx: JobContext) -> int:
    return len(args.names)


async def test_a_thousand_mistakes_in_one_record_cost_that_record_alone(settings: Settings) -> None:
    settings = with_engine(settings, partitions=1)
    async with engine_with(settings, counts), Client(settings) as client:
        # A client that the schema was not told to: another program can write what it likes.
        client.define(WorkerDefinition(name="counts", description="", category="test"))
        wrong = await ended(client, await client.enqueue("counts", {"names": ["x"] * 40_000}))
        right = await ended(client, await client.enqueue("counts", {"names": [1, 2]}))
    assert (wrong.status, right.result) == ("failed", 2)
    assert wrong.error and wrong.error.type == "arguments_invalid" and len(wrong.error.message) <= 4096


async def test_refusals_at_the_edge_write_nothing(settings: Settings) -> None:
    async with engine_with(settings, Square) as engine, Client(settings) as client:
        with pytest.raises(WorkerUnknown, match="square"):
            await client.enqueue("cube", {"number": 1})
        with pytest.raises(ArgumentsInvalid, match="number"):
            await engine.enqueue("square", {"number": "x"})
        with pytest.raises(ArgumentsInvalid, match=r"args\[1\].number: 'x' is not of type 'integer'"):
            await client.enqueue_many("square", [{"number": 1}, {"number": "x"}])
        with pytest.raises(ArgumentsInvalid, match="number"):
            await client.enqueue(Square, Names(names=[]))
        with pytest.raises(ArgumentsInvalid, match="ordering key is empty"):
            await client.enqueue("square", {"number": 1}, ordering_key="")
        with pytest.raises(PayloadTooLarge, match="524288"):
            await client.enqueue("square", {"number": 1, "text": "x" * 530_000})
        with pytest.raises(ArgumentsInvalid, match="JSON"):
            await client.enqueue("square", {"number": object()})
        with pytest.raises(ArgumentsInvalid, match="userId"):
            await client.enqueue("square", {"number": 1}, {"userId": "u" * 201})
        assert (await client.list_jobs()).jobs == []
    assert await read_all(settings, Topics(settings.namespace).jobs_name("square")) == []


async def test_what_the_brokers_refuse_is_told_at_once_and_not_as_perhaps_accepted(settings: Settings) -> None:
    log, queue = KafkaLog(settings), Topics(settings.namespace).jobs("square", 1)
    await log.create_topics([replace(queue, configuration={**queue.configuration, "max.message.bytes": "600"})])
    await log.close()
    async with Client(settings) as client:
        client.define(Square().definition())
        accepted = await client.enqueue("square", {"number": 1})
        with pytest.raises(BrokerError, match="did not take"):
            await client.enqueue("square", {"number": 2, "text": "x" * 1000})
        after = await client.enqueue("square", {"number": 3})
    records = await read_all(settings, queue)
    assert [record.key for record in records] == [accepted.id.encode(), after.id.encode()]


async def test_large_arguments_are_not_repeated_in_every_snapshot(settings: Settings) -> None:
    async with engine_with(settings, Unruly) as engine, Client(settings) as client:
        job = await engine.enqueue("unruly", {"how": "well", "text": "x" * 200_000})
        done = await ended(client, job)
        assert done.result == "well"
    assert all("args" not in snapshot for snapshot in await snapshots_of(settings, job.id))


def test_an_engine_says_what_is_wrong_with_its_workers(settings: Settings) -> None:
    engine = WorkerEngine(settings)
    engine.register_worker(Square)
    with pytest.raises(ConfigurationError, match="Two workers"):
        engine.register_worker(Square())

    class Nameless(AbstractWorker[dict[str, Any]]):
        async def run(self, args: dict[str, Any], ctx: JobContext) -> None: ...

    with pytest.raises(ConfigurationError, match="Nameless"):
        engine.register_worker(Nameless)
