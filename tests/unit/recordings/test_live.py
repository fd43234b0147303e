"""What live jobs get from outside is recorded before they have it, and a second attempt may take what the first one paid for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from headrace import AbstractWorker, Job, JobContext, Retry, WorkerEngine
from headrace.errors import BrokerUnreachable
from headrace.job_context import JobServices
from headrace.ports import NewRecord, RecordingKey, TopicPartition
from headrace.recordings import LiveRecordings, parse_recording_key, recordings_of
from headrace.recordings.reading import RecordingTails
from headrace.recordings.records import recording_key
from headrace.testing import InMemoryLog
from support.log import eventually
from support.memory_engines import TOPICS, Bench, loop_clock, wall_clock
from support.virtual_time import in_virtual_time

RECORDINGS = TOPICS.recordings.name
JOB = {
    **{"id": "j", "workerName": "asks", "status": "running"},
    **{"createdAt": "2026-03-02T09:30:00.000Z", "updatedAt": "2026-03-02T09:30:00.000Z"},
}


class Answer(BaseModel):
    text: str
    words: tuple[int, ...] = ()


class Asks(AbstractWorker[dict[str, Any]]):
    """Does with its context what the test says."""

    name = "asks"

    def __init__(self, behaves: Callable[[JobContext], Any]) -> None:
        self.behaves = behaves

    async def run(self, args: dict[str, Any], ctx: JobContext) -> Any:
        return await self.behaves(ctx)


class AsksInThread(Asks):
    """The same of a plain function."""

    def run(self, args: dict[str, Any], ctx: JobContext) -> Any:  # a plain function, and not a coroutine function
        return self.behaves(ctx)


@asynccontextmanager
async def running(bench: Bench, worker: AbstractWorker[Any]) -> AsyncIterator[WorkerEngine]:

    engine = WorkerEngine(bench.settings, log=InMemoryLog(bench.cluster), clock=loop_clock, now=wall_clock)
    engine.register_worker(worker)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.stop(grace_seconds=0)


def enqueue(bench: Bench, job_id: str = "job", **fields: Any) -> str:
    raw = {
        **{"schemaVersion": 1, "id": job_id, "tenant": "acme", "workerName": "asks", "createdAt": "2026-03-02T09:30:00.000Z"},
        **{"args": {}, "ctx": {}},
        **fields,
    }
    bench.cluster.append(TopicPartition(TOPICS.jobs_name("asks"), 0), NewRecord(job_id.encode(), orjson.dumps(raw)))
    return job_id


async def done(bench: Bench, job_id: str = "job") -> dict[str, Any]:
    """The job's last snapshot, when it has ended."""
    await eventually(lambda: bench.statuses(job_id)[-1:] in (["completed"], ["failed"]), "its end")
    return bench.written(job_id)[-1]


def recorded(bench: Bench) -> list[tuple[bytes, Any]]:
    if RECORDINGS not in bench.cluster.topic_names():
        return []
    return [(record.key or b"", orjson.loads(record.value or b"")) for record in bench.cluster.topic_records(RECORDINGS)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@in_virtual_time
async def test_an_answer_is_recorded_and_handed_back_as_json_has_it(bench: Bench) -> None:
    async def asks(ctx: JobContext) -> Any:
        async def model() -> Answer:
            return Answer(text="yes", words=(1, 2))

        answers = [await ctx.recorded("model/1", model), await ctx.recorded("model/1", lambda: {3: (4,)})]
        assert answers == [{"text": "yes", "words": [1, 2]}, {"3": [4]}]
        return [*answers, await ctx.recorded("nothing", lambda: None)]

    async with running(bench, Asks(asks)):
        job_id = enqueue(bench)
        ended = await done(bench)
        assert ended["status"] == "completed", ended
        found = await recordings_of(InMemoryLog(bench.cluster), TOPICS, job_id, 1, wall_clock())
    assert recorded(bench) == [
        (b"job/1/model%2F1/0", {"text": "yes", "words": [1, 2]}),
        (b"job/1/model%2F1/1", {"3": [4]}),
        (b"job/1/nothing/0", None),
    ]
    assert found == {
        RecordingKey("model/1", 0): b'{"text":"yes","words":[1,2]}',
        RecordingKey("model/1", 1): b'{"3":[4]}',
        RecordingKey("nothing", 0): b"null",
    }
    [record, *_] = bench.cluster.topic_records(RECORDINGS)
    assert dict(record.headers) == {
        "headrace-schema-version": b"1",
        "headrace-tenant": b"acme",
        "headrace-worker-name": b"asks",
        "headrace-source": b"asks/0/0",
    }


@in_virtual_time
async def test_the_answer_is_not_given_before_it_is_acknowledged(bench: Bench) -> None:
    got: list[Any] = []

    async def asks(ctx: JobContext) -> None:
        got.append(await ctx.recorded("model", lambda: "yes"))

    async with running(bench, Asks(asks)):
        held = bench.cluster.hold_acknowledgements(RECORDINGS)
        enqueue(bench)
        await eventually(lambda: len(recorded(bench)) == 1, "the record")
        await asyncio.sleep(5)
        assert got == []
        held.release()
        await done(bench)
    assert got == ["yes"]


@in_virtual_time
async def test_jobs_that_record_nothing_make_no_topic(bench: Bench) -> None:
    async def asks(ctx: JobContext) -> None:
        assert not ctx.replaying

    async with running(bench, Asks(asks)):
        enqueue(bench)
        assert (await done(bench))["status"] == "completed"
        assert await recordings_of(InMemoryLog(bench.cluster), TOPICS, "job", 1, 0) == {}
    assert RECORDINGS not in bench.cluster.topic_names()


@in_virtual_time
async def test_the_time_begins_with_the_record_of_the_attempts_start(bench: Bench) -> None:
    async def asks(ctx: JobContext) -> Any:
        await asyncio.sleep(3)
        times = [ctx.now()]
        for seconds in (0, 2.5):
            await asyncio.sleep(seconds)
            times.append(ctx.now())
        if ctx.attempt == 1:
            raise Retry("once more", after=3)
        return [each.isoformat() for each in times]

    async with running(bench, Asks(asks)):
        enqueue(bench)
        ended = await done(bench)
    first, same, later = (datetime.fromisoformat(each) for each in ended["result"])
    assert first == same == datetime.fromisoformat(ended["attempts"][1]["startedAt"])
    assert later - first == timedelta(seconds=2.5)


@in_virtual_time
async def test_a_second_attempt_takes_what_an_earlier_one_recorded_where_it_may(bench: Bench) -> None:
    paid: list[str] = []

    async def asks(ctx: JobContext) -> Any:
        def pay(what: str) -> str:
            paid.append(f"{what} in {ctx.attempt}")
            return f"{what} of {ctx.attempt}"

        again = await ctx.recorded("reused", lambda: pay("reused"), reuse=True)
        anew = await ctx.recorded("anew", lambda: pay("anew"))
        if ctx.attempt == 1:
            raise Retry("once more", after=3)
        late = await ctx.recorded("reused", lambda: pay("late"), reuse=True)
        if ctx.attempt == 2:
            raise Retry("once more", after=3)
        return [again, anew, late]

    async with running(bench, Asks(asks)):
        enqueue(bench)
        ended = await done(bench)
    assert ended["result"] == ["reused of 1", "anew of 3", "late of 2"]
    assert paid == ["reused in 1", "anew in 1", "anew in 2", "late in 2", "anew in 3"]


@in_virtual_time
async def test_of_two_earlier_attempts_the_newest_recording_counts(bench: Bench) -> None:
    async def asks(ctx: JobContext) -> Any:
        found = await ctx.recorded("it", lambda: ctx.attempt, reuse=ctx.attempt == 3)
        if ctx.attempt < 3:
            raise Retry("once more", after=1)
        return found

    async with running(bench, Asks(asks)):
        enqueue(bench)
        assert (await done(bench))["result"] == 2


@in_virtual_time
async def test_many_second_attempts_share_the_reading(bench: Bench) -> None:
    readers = 0

    class Counting(InMemoryLog):
        def reader(self) -> Any:
            nonlocal readers
            readers += 1
            return super().reader()

    log = Counting(bench.cluster)
    await log.create_topics([TOPICS.recordings])
    partition = TopicPartition(RECORDINGS, 0)
    ids = [f"job-{number}" for number in range(200)]
    for each in ids:
        key = recording_key(each, 1, RecordingKey("it", 0))
        bench.cluster.append(partition, NewRecord(key, orjson.dumps(each)))
    tails = RecordingTails(log)
    found = await asyncio.gather(*(tails.read(partition, each, wall_clock()) for each in ids))
    assert [[orjson.loads(record.value) for record in of_job] for of_job in found] == [[each] for each in ids]
    assert readers <= 2
    bench.cluster.append(partition, NewRecord(recording_key("job-3", 2, RecordingKey("it", 0)), b"2"))
    assert [record.place.attempt for record in await tails.read(partition, "job-3", wall_clock())] == [1, 2]


@in_virtual_time
async def test_what_is_raised_is_recorded_beside_the_answer_whose_place_it_takes(bench: Bench) -> None:
    def fails() -> None:
        raise ConnectionError("busy")

    async def asks(ctx: JobContext) -> Any:
        for _ in range(2):
            with pytest.raises(ConnectionError, match="busy"):
                await ctx.recorded("model", fails)
        return await ctx.recorded("model", lambda: "yes")

    async with running(bench, Asks(asks)):
        enqueue(bench)
        assert (await done(bench))["result"] == "yes"
    busy = {"type": "ConnectionError", "message": "busy", "args": ["busy"]}
    assert recorded(bench) == [(b"job/1/model/0/0", busy), (b"job/1/model/0/1", busy), (b"job/1/model/0", "yes")]


async def test_what_was_raised_is_not_taken_by_a_later_attempt(bench: Bench) -> None:
    asked: list[int] = []

    def asks(ctx: JobContext) -> Any:
        def outside() -> str:
            asked.append(ctx.attempt)
            if ctx.attempt == 1:
                raise TimeoutError("slow")
            return "yes"

        try:
            return ctx.recorded_from_thread("model", outside, reuse=True)
        except TimeoutError:
            raise Retry("once more", after=0) from None

    async with running(bench, AsksInThread(asks)):
        enqueue(bench)
        assert (await done(bench))["result"] == "yes"
    assert asked == [1, 2]
    assert [key for key, _ in recorded(bench)] == [b"job/1/model/0/0", b"job/2/model/0"]


@pytest.mark.parametrize(
    ("given", "message"),
    [(object(), "is no JSON"), ("x" * 524_287, "takes 524289 bytes"), (float, "is no JSON")],
    ids=["object", "large", "class"],
)
@in_virtual_time
async def test_what_cannot_be_recorded_fails_the_attempt(bench: Bench, given: Any, message: str) -> None:
    async def asks(ctx: JobContext) -> Any:
        return await ctx.recorded("model", lambda: given)

    async with running(bench, Asks(asks)):
        enqueue(bench)
        ended = await done(bench)
    assert ended["error"]["type"] == "headrace.errors.RecordingRefused"
    assert message in ended["error"]["message"]
    [(key, told)] = recorded(bench)
    assert (key, told["type"]) == (b"job/1/model/0/0", "headrace.errors.RecordingRefused"), "a replay fails by it, too"


@in_virtual_time
async def test_a_name_has_to_be_one(bench: Bench) -> None:
    async def asks(ctx: JobContext) -> Any:
        return await ctx.recorded(ctx.job.args["name"], lambda: 1)  # type: ignore[index]

    async with running(bench, Asks(asks)):
        for number, name in enumerate(("", "n" * 201)):
            enqueue(bench, f"job-{number}", args={"name": name})
            assert "1 to 200 characters" in (await done(bench, f"job-{number}"))["error"]["message"]


@in_virtual_time
async def test_brokers_that_take_no_recording_interrupt_the_attempt(bench: Bench) -> None:
    async def asks(ctx: JobContext) -> Any:
        return await ctx.recorded("model", lambda: ctx.attempt)

    async with running(bench, Asks(asks)):
        held = bench.cluster.hold_acknowledgements(RECORDINGS)
        enqueue(bench)
        await eventually(lambda: "queued" in bench.statuses("job"), "an interruption")
        held.release()
        ended = await done(bench)
    assert ended["result"] == ended["attempt"] > 1
    assert ended.get("failures", 0) == 0


@pytest.mark.parametrize("worker", [Asks, AsksInThread])
async def test_nothing_is_asked_for_where_nothing_can_be_recorded(bench: Bench, worker: type[Asks]) -> None:
    paid: list[int] = []
    log = InMemoryLog(bench.cluster)
    recordings = LiveRecordings(log, TOPICS)
    log.refuse_requests(BrokerUnreachable("nothing answers"))
    job = Job.model_validate(JOB)
    services = JobServices(recordings=recordings.of, loop=asyncio.get_running_loop())

    async def asks(ctx: JobContext) -> Any:
        return await ctx.recorded("model", lambda: paid.append(1))

    def asks_in_thread(ctx: JobContext) -> Any:
        return ctx.recorded_from_thread("model", lambda: paid.append(1))

    with pytest.raises(BrokerUnreachable):
        await worker(asks if worker is Asks else asks_in_thread).process_job(job, JobContext(job, services=services))
    assert paid == []
    await recordings.stop(timeout=0)


async def test_a_plain_function_records_from_its_thread(bench: Bench) -> None:
    def asks(ctx: JobContext) -> Any:
        found = ctx.recorded_from_thread("model", lambda: (ctx.attempt, 2), reuse=True)
        if ctx.attempt == 1:
            raise Retry("once more", after=0)
        return found

    async with running(bench, AsksInThread(asks)):
        enqueue(bench)
        assert (await done(bench))["result"] == [1, 2]
    assert recorded(bench) == [(b"job/1/model/0", [1, 2])]


async def test_the_event_loop_is_not_blocked(bench: Bench) -> None:
    async def asks(ctx: JobContext) -> Any:
        return ctx.recorded_from_thread("model", lambda: 1)

    async with running(bench, Asks(asks)):
        enqueue(bench)
        assert "await recorded()" in (await done(bench))["error"]["message"]


async def test_an_answer_that_nobody_would_await_is_not_left_out_in_silence(bench: Bench) -> None:
    def asks(ctx: JobContext) -> Any:
        ctx.recorded("model", lambda: 1)  # type: ignore[unused-coroutine]  # the mistake
        return None

    async with running(bench, AsksInThread(asks)):
        enqueue(bench)
        assert "recorded_from_thread()" in (await done(bench))["error"]["message"]


async def test_without_an_engine_everything_is_asked_for_outside() -> None:
    async def asks(ctx: JobContext) -> Any:
        return await ctx.recorded("model", lambda: (1, 2))

    job = Job.model_validate(JOB)
    assert await Asks(asks).process_job(job) == [1, 2]
    in_thread = AsksInThread(lambda ctx: ctx.recorded_from_thread("model", lambda: (1, 2)))
    assert await in_thread.process_job(job) == [1, 2]


def test_keys_that_are_none_are_told() -> None:
    assert [parse_recording_key(key) for key in (None, b"", b"a/b/c/d", b"a/1/c", b"a/1/c/x", b"a/1/c/2/x")] == [None] * 6
