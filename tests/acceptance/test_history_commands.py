"""`headrace timeline`, `state` and `export` on the real broker: exact while records are there, else rebuilt."""

from __future__ import annotations

import asyncio
import gzip
import json
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from typer.testing import CliRunner, Result

from headrace import AbstractWorker, Client, Job, JobContext, NewEntry, RetryPolicy, Settings
from headrace.cli.main import application
from headrace.core.timestamps import format_timestamp, parse_timestamp
from headrace.core.topics import Topics
from headrace.kafka.log import KafkaLog
from headrace.ports import ConversationRef, Record, TopicPartition
from headrace.replay import Wanted, open_history, read_file_history
from support.clusters import state_of
from support.engines import ended, engine_with, eventually, read_all, with_engine
from support.processes import freeze, wait_until

ResultT = TypeVar("ResultT")
COMPACTED_WITHIN = 180.0


class Sells(AbstractWorker[dict[str, Any]]):
    """Fails once, with half of it done; then asks outside, has it packed, and remembers."""

    name = "sells"
    retry = RetryPolicy(max_attempts=3, initial=0.05, factor=1.0)

    async def run(self, args: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
        ctx.progress(0.5, "half")
        if args.get("broken") or ctx.attempt == 1:
            raise ConnectionError("the till is closed, pin 1234")
        rate = await ctx.recorded("rate", lambda: {"rate": 3, "key": "secret"})
        child = await ctx.enqueue("packs", {"for": ctx.job.id})
        await ctx.memory.append("ann", "orders", [NewEntry(role="user", content="sold a secret")])
        return {"total": 7 * rate["rate"], "packs": child.id}


class Packs(AbstractWorker[dict[str, Any]]):
    name = "packs"

    async def run(self, args: dict[str, Any], ctx: JobContext) -> str:
        return "packed"


def cli(settings: Settings, *arguments: str) -> Result:
    where = ("--bootstrap-servers", str(settings.bootstrap_servers), "--namespace", settings.namespace)
    return CliRunner().invoke(application, [*arguments, *where], env={"COLUMNS": "200"})


def printed(settings: Settings, *arguments: str) -> str:
    """What a command printed that did what it was told."""
    result = cli(settings, *arguments)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.stdout


def refused(settings: Settings, *arguments: str) -> str:
    """What a command said that exits with 2; one line."""
    result = cli(settings, *arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.output + repr(result.exception)
    return result.stderr


def timeline(settings: Settings, job: Job) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(printed(settings, "timeline", job.id, "--json"))
    return told


def state(settings: Settings, at: int, *options: str) -> dict[str, dict[str, Any]]:
    """What every job looked like, by id."""
    told = json.loads(printed(settings, "state", "--at", format_timestamp(at), "--json", *options))
    return {each["job"]["id"]: each for each in told}


def before_and_after(settings: Settings, work: Callable[[], ResultT]) -> ResultT:
    """Checks that what is done changes nothing on the cluster."""
    before = asyncio.run(state_of(settings))
    done = work()
    assert asyncio.run(state_of(settings)) == before
    return done


async def traffic(settings: Settings, then: Callable[[list[Job]], Awaitable[None]] | None = None) -> list[Job]:
    """Jobs that were sold, failed for good, and were cancelled before they began."""
    async with engine_with(settings, Sells(), Packs()):
        pass  # it has said which workers there are
    async with Client(settings) as client:
        args: list[dict[str, Any]] = [{"pin": "1234"}, {"pin": "1234", "broken": True}, {}]
        jobs = [await client.enqueue("sells", each, {"userId": "ann", "conversationId": "orders"}) for each in args]
        await client.cancel_job(jobs[2].id)
        async with engine_with(settings, Sells(), Packs()):
            for job in jobs:
                await ended(client, job)
            sold = await client.get_job(jobs[0].id)
            assert sold is not None and sold.result is not None
            child = await client.get_job(sold.result["packs"])
            assert child is not None
            jobs.append(await ended(client, child))
            if then is not None:
                await then(jobs)
    return jobs


def of_job(records: list[Record], job: Job) -> list[tuple[Record, dict[str, Any]]]:
    return [(record, json.loads(record.value)) for record in records if record.key == job.id.encode() and record.value]


def log_lines(told: dict[str, Any], topic: str) -> list[tuple[int, int]]:
    return [(line["partition"], line["offset"]) for line in told["lines"] if line["topic"] == topic and line["origin"] == "log"]


def test_all_that_the_log_has_of_jobs_is_told(settings: Settings) -> None:
    settings = with_engine(settings, janitor=False)
    jobs = asyncio.run(traffic(settings))
    topics = Topics(settings.namespace)
    records = asyncio.run(read_all(settings, topics.job_state))
    sold, failed, cancelled, child = jobs

    told = before_and_after(settings, lambda: timeline(settings, sold))
    assert [line["event"] for line in told["lines"]] == [
        *("accepted", "started", "progressed", "retrying", "started", "progressed"), "recorded", "child", "completed"
    ] or [line["event"] for line in told["lines"] if line["event"] != "progressed"] == [
        "accepted", "started", "retrying", "started", "recorded", "child", "completed"
    ]  # fmt: skip  # what an attempt says of its progress last is written if there is time
    assert {line["origin"] for line in told["lines"]} == {"log"} and not any(line["void"] for line in told["lines"])
    snapshots = of_job(records, sold)
    assert log_lines(told, topics.job_state.name) == [(record.partition, record.offset) for record, _ in snapshots]
    assert log_lines(told, topics.jobs_name("sells")) == [(sold.source.partition, sold.source.offset)] if sold.source else False
    assert [line["at"] for line in told["lines"] if line["topic"] == topics.job_state.name] == [
        format_timestamp(record.timestamp) for record, _ in snapshots
    ]
    assert [(each["id"], each["status"]) for each in told["children"]] == [(child.id, "completed")]
    [last] = [line for line in told["lines"] if line["event"] == "completed"]
    assert {"field": "result", "after": {"total": 21, "packs": child.id}} in last["changes"]
    [recorded] = [line for line in told["lines"] if line["event"] == "recorded"]
    assert (recorded["attempt"], recorded["changes"][0]["after"]) == (2, {"rate": 3, "key": "secret"})

    assert [line["event"] for line in timeline(settings, cancelled)["lines"]] == ["accepted", "cancel-requested", "cancelled"]
    ends = [line["event"] for line in timeline(settings, failed)["lines"] if line["event"] in ("retrying", "failed")]
    assert ends == ["retrying", "retrying", "failed"]
    shown = printed(settings, "timeline", failed.id)
    assert "ConnectionError" in shown and f"job-state/{of_job(records, failed)[0][0].partition}/" in shown

    # At the moment of each record, and just before it, every job is as its records say.
    own = {job.id: of_job(records, job) for job in jobs}
    moments = sorted({record.timestamp + shift for found in own.values() for record, _ in found for shift in (0, -1)})
    accepted = {job.id: line["at"] for job in jobs for line in timeline(settings, job)["lines"][:1]}
    for at in (moments[0], moments[len(moments) // 2], moments[-1], moments[-1] + 60_000):
        expected = {
            job_id: ([snapshot["status"] for record, snapshot in own[job_id] if record.timestamp <= at] or ["queued"])[-1]
            for job_id in own
            if parse_timestamp(accepted[job_id]) <= at
        }
        found = before_and_after(settings, lambda at=at: state(settings, at))  # type: ignore[misc]  # it is called at once
        assert {job_id: each["job"]["status"] for job_id, each in found.items()} == expected
        assert {each["origin"] for each in found.values()} == {"log"}
    assert set(state(settings, moments[-1], "--worker", "packs")) == {child.id}
    assert set(state(settings, moments[-1], "--where", "status=failed,userId=ann")) == {failed.id}
    shown = printed(settings, "state", "--at", "now")
    assert "1 cancelled, 2 completed, 1 failed." in shown and all(job.id in shown for job in jobs)


async def compact_quickly(settings: Settings) -> None:
    """Has Kafka compact the topic of states within a minute, and not after hours."""
    topic = Topics(settings.namespace).job_state
    quick = {
        "segment.ms": "500",
        "min.cleanable.dirty.ratio": "0",
        "min.compaction.lag.ms": "0",
        "max.compaction.lag.ms": "1000",
    }
    client = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    await client.start()
    try:
        await client.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic.name, configs={**topic.configuration, **quick})]
        )
    finally:
        await client.close()


def test_what_was_compacted_is_rebuilt(settings: Settings) -> None:
    settings = with_engine(settings, janitor=False, partitions=1)
    before: dict[str, list[tuple[Record, dict[str, Any]]]] = {}
    topic = Topics(settings.namespace).job_state

    async def compacted(jobs: list[Job]) -> None:
        records = await read_all(settings, topic)
        before.update({job.id: of_job(records, job) for job in jobs})

        async def gone() -> bool:
            left = await read_all(settings, topic)
            return all(len(of_job(left, job)) == 1 for job in jobs)

        await compact_quickly(settings)
        # Meanwhile the engine renews its leases, so that the segments roll.
        await eventually(gone, within=COMPACTED_WITHIN)

    jobs = asyncio.run(traffic(settings, compacted))
    for job in jobs:
        lines = [line for line in timeline(settings, job)["lines"] if line["topic"] == topic.name]
        states = [(record, snapshot) for record, snapshot in before[job.id] if not is_progress(snapshot)]
        assert [line["origin"] for line in lines] == [*["snapshot"] * (len(states) - 1), "log"]
        assert [line["event"] for line in lines] == [event(snapshot) for _, snapshot in states]
        assert [line["attempt"] for line in lines if "attempt" in line] == [
            each["attempt"] for _, each in states if each["attempt"]
        ]
        assert [line["at"] for line in lines[:-1]] == [snapshot["updatedAt"] for _, snapshot in states[:-1]]
        assert {line["offset"] for line in lines} == {before[job.id][-1][0].offset}, "the one that is left tells of all"
    failed = jobs[1]
    stood = [snapshot for _, snapshot in before[failed.id] if not is_progress(snapshot)]
    for snapshot, later in pairwise(stood):
        middle = (parse_timestamp(snapshot["updatedAt"]) + parse_timestamp(later["updatedAt"])) // 2
        found = state(settings, max(middle, parse_timestamp(snapshot["updatedAt"])))[failed.id]
        assert (found["origin"], found["job"]["status"], found["job"]["attempt"]) == (
            "snapshot", snapshot["status"], snapshot["attempt"]
        )  # fmt: skip
        assert [each["status"] for each in found["job"]["attempts"]] == [each["status"] for each in snapshot["attempts"]]


def is_progress(snapshot: dict[str, Any]) -> bool:
    return bool(snapshot["status"] == "running" and snapshot["sequence"] > 1)


def event(snapshot: dict[str, Any]) -> str:
    names = {"running": "started", "queued": "retrying"}
    return names.get(snapshot["status"], str(snapshot["status"]))


def test_an_export_gives_what_the_log_gave_without_what_was_redacted(settings: Settings, tmp_path: Path) -> None:
    settings = with_engine(settings, janitor=False)
    jobs = asyncio.run(traffic(settings))
    path, hidden = tmp_path / "span.jsonl.gz", tmp_path / "hidden.jsonl.gz"
    said = before_and_after(settings, lambda: printed(settings, "export", "--from", "1h", "--output", str(path)))
    assert "4 jobs, 2 workers, 1 recording and 1 record of memory" in said

    async def compare() -> None:
        file, orders = read_file_history(path), ConversationRef("default", "ann", "orders")
        wanted = Wanted(span=file.span)
        async with open_history(settings) as history:
            of_log, of_file = [{job.id: job async for batch in each.jobs(wanted) for job in batch} for each in (history, file)]
            assert set(of_log) == {job.id for job in jobs} and of_file == of_log
            first = of_log[jobs[0].id]
            assert await file.recordings(first, 2) == await history.recordings(first, 2) != {}
            assert await file.recordings(first, 1) == {}
            assert await file.worker_definitions() == await history.worker_definitions()
            now = file.span.end
            assert await file.memory_at(orders, now) == await history.memory_at(orders, now)
            assert [entry.content for entry in (await file.memory_at(orders, now)).entries] == ["sold a secret"]
            assert (await file.memory_at(orders, of_log[jobs[0].id].accepted_at)).entries == ()

    asyncio.run(compare())
    paths = ("args.pin", "recordings.rate.key", "memory.content", "error.message", "error.traceback")
    redacted = [f"--redact={each}" for each in paths]
    said = refused(settings, "export", "--from", "1h", "-o", str(hidden), *redacted, "--redact=args.misspelt")
    assert "--redact args.misspelt has met nothing" in said and "`" not in said and files_of(tmp_path) == {path.name}
    message_alone = cli(settings, "export", "--from", "1h", "-o", str(hidden), "--redact=error.message")
    assert (message_alone.exit_code, "Warning: error.message: each error.traceback" in message_alone.stderr) == (0, True)
    printed(settings, "export", "--from", "1h", "-o", str(hidden), "--force", *redacted)
    text = gzip.decompress(hidden.read_bytes())
    assert b"secret" not in text and b"1234" not in text and b"[redacted]" in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_export_that_is_ended_leaves_no_half_of_a_file(settings: Settings, tmp_path: Path, number: signal.Signals) -> None:
    asyncio.run(traffic(with_engine(settings, janitor=False)))
    folder, path = tmp_path / "exports", tmp_path / "exports" / "span.jsonl.gz"
    folder.mkdir()
    # Where it was done before it was caught, it is done again.
    for _ in range(10):
        path.unlink(missing_ok=True)
        with exporting(settings, path) as process:
            wait_until(lambda: any(folder.iterdir()), "an export has begun", seconds=120)
            freeze(process.pid)
            caught = not path.exists()
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)
            _, said = process.communicate(timeout=120)
        if caught and process.returncode:
            break
    assert (process.returncode, said) == (130, "Interrupted.\n")
    assert list(folder.iterdir()) == []


@contextmanager
def exporting(settings: Settings, path: Path) -> Iterator[subprocess.Popen[str]]:
    """An export that runs, and is gone at the end."""
    where = ("--bootstrap-servers", str(settings.bootstrap_servers), "--namespace", settings.namespace)
    words = [sys.executable, "-m", "headrace", "export", "--from", "1h", "-o", str(path), *where]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_bad_input_is_told_and_changes_nothing(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = with_engine(settings, janitor=False, partitions=1)
    path = str(tmp_path / "span.gz")

    async def two_jobs() -> Job:
        async with Client(settings) as client:
            await client.enqueue(Packs, {})
            return await client.enqueue(Packs, {})

    second = asyncio.run(two_jobs())

    def bad() -> None:
        assert "There is no job 'nothing' in the log" in refused(settings, "timeline", "nothing")
        for command in (("state", "--at", "now"), ("export", "--from", "1h", "-o", path)):
            assert "a worker named 'nobody'" in refused(settings, *command, "--worker", "nobody")
        assert "--at 'yesterday' is no time" in refused(settings, "state", "--at", "yesterday")
        assert "the span is empty" in refused(settings, "export", "--from", "1h", "--to", "2h", "-o", path)
        assert "that is in the log: those that are there came from 2" in refused(
            settings, "export", "--from", "2h", "--to", "1h", "-o", path
        )
        assert "begin at 2" in refused(settings, "state", "--at", "1h")
        assert "no path of a field" in refused(settings, "export", "--from", "1h", "-o", path, "--redact", "args..x")
        elsewhere = settings.model_copy(update={"namespace": f"{settings.namespace}-none"})
        assert "No job of the namespace" in refused(elsewhere, "state", "--at", "now")

    before_and_after(settings, bad)
    assert files_of(tmp_path) == set()

    async def cut() -> Record:
        log = KafkaLog(settings)
        queue = TopicPartition(Topics(settings.namespace).jobs_name("packs"), 0)
        try:
            await log.delete_records({queue: 1})
        finally:
            await log.close()
        return (await read_all(settings, queue.topic))[0]

    first = format_timestamp(asyncio.run(cut()).timestamp)
    # What is younger than the retention is never deleted: with it as it is, nothing may be missing.
    with monkeypatch.context() as shorter:
        shorter.setenv("HEADRACE_ENGINE_JOB_RETENTION_SECONDS", "0.001")
        told = refused(settings, "export", "--from", "1h", "-o", path)
        # And what may be deleted is all that came before the end of the span: nothing that is kept is in it.
        assert (
            f"was accepted at {first}, and may be deleted" in told and f"begin at {first}, as long as that job is there" in told
        )
    assert second.id in printed(settings, "timeline", second.id)
    printed(settings, "export", "--from", first, "-o", path)
    assert "is there already: name another file, or allow that by --force." in refused(
        settings, "export", "--from", first, "-o", path
    )
    assert files_of(tmp_path) == {"span.gz"}


def test_a_job_beyond_retention_has_no_timeline_and_no_replay(settings: Settings) -> None:
    settings = with_engine(settings, janitor=False, partitions=1)

    async def gone() -> Job:
        async with engine_with(settings, Packs()), Client(settings) as client:
            job = await ended(client, await client.enqueue(Packs, {}))
        log = KafkaLog(settings)
        try:
            await log.delete_records({TopicPartition(Topics(settings.namespace).jobs_name("packs"), 0): 1})
        finally:
            await log.close()
        return job

    job = asyncio.run(gone())
    said = (
        f"Error: The record of job {job.id} was deleted from its queue, as those of jobs are that ended long ago, and with it"
        " its history. It is known that it was completed at the end.\n"
    )

    def bad() -> None:
        assert refused(settings, "timeline", job.id) == refused(settings, "replay", "job", job.id) == said

    before_and_after(settings, bad)


def files_of(directory: Path) -> set[str]:
    """What the commands have made; not the data of the clients that enqueued."""
    return {each.name for each in directory.iterdir()} - {"headrace"}
