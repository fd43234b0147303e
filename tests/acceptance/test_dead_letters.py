"""Dead letters and retries on the real broker, by commands and in Python: from a bad record to the job that does it anew."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import orjson
from pydantic import BaseModel
from typer.testing import CliRunner, Result

from headrace import AbstractWorker, Client, DeadLetter, Job, JobContext, Settings
from headrace.cli.main import application
from headrace.core.topics import Topics
from headrace.kafka.log import KafkaLog
from headrace.ports import NewRecord, TopicPartition
from support.engines import committed, ended, engine_with, eventually, read_all, with_engine
from support.markdown import ROOT, blocks

CONTROLS = "\x1b]0;owned\x07"


class Numbers(BaseModel):
    number: int


class Square(AbstractWorker[Numbers]):
    name = "square"
    broken = False

    async def run(self, args: Numbers, ctx: JobContext) -> int:
        if self.broken:
            raise ValueError("out of order")
        return args.number**2


class Anything(AbstractWorker[dict[str, Any]]):
    """As `Square`, before it knew what it wanted: its schema lets everything pass."""

    name = "square"

    async def run(self, args: dict[str, Any], ctx: JobContext) -> Any:
        return args


def run(
    settings: Settings, *arguments: str, exits: int = 0, typed: str | None = None, columns: int = 200, terminal: bool = False
) -> Result:
    assert settings.bootstrap_servers is not None
    where = ("--bootstrap-servers", settings.bootstrap_servers, "--namespace", settings.namespace)
    environment = {"COLUMNS": str(columns), "HEADRACE_DATA_DIRECTORY": str(settings.data_directory)}
    if terminal:
        environment |= {"FORCE_COLOR": "1", "TERM": "xterm"}
    result = CliRunner().invoke(application, [*arguments, *where], env=environment, input=typed)
    assert result.exit_code == exits, result.output + repr(result.exception)
    return result


async def _write(settings: Settings, values: list[bytes]) -> None:
    """Writes records into the queue, as any program could."""
    log = KafkaLog(settings)
    writer = log.writer()
    await writer.start()
    queue = TopicPartition(Topics(settings.namespace).jobs_name("square"), 0)
    for value in values:
        await writer.append(queue, NewRecord(b"key", value, [("own", b"header")]), timeout=10)
    await writer.stop(timeout=5)
    await log.close()


def _record(job_id: str, args: Any, worker: str = "square") -> bytes:
    record = {"id": job_id, "workerName": worker, "createdAt": "2026-01-01T00:00:00Z", "args": args, "ctx": {"userId": "u"}}
    return orjson.dumps({"schemaVersion": 1, **record})


async def _bury(settings: Settings) -> list[DeadLetter]:
    """An engine buries three bad records."""
    settings = with_engine(settings, commit_interval_seconds=0.1)
    async with engine_with(settings, Square), Client(settings) as client:
        await _write(
            settings, [_record("job-text", {"number": "four"}), f"no job {CONTROLS}".encode(), _record("job-else", {}, "cube")]
        )

        async def buried() -> bool:
            return (await committed(settings, "square")).get(0) == 3

        await eventually(buried)
        return [letter async for letter in client.dead_letters()]


def test_dead_letters_are_listed_shown_and_redriven(settings: Settings) -> None:
    letters = {letter.reason: letter for letter in asyncio.run(_bury(settings))}
    bad, nonsense, elsewhere = (letters[reason] for reason in ("arguments_invalid", "undecodable", "worker_unknown"))

    table = run(settings, "dead-letters", "list").output
    assert all(each.place in table for each in letters.values())
    assert "number: Input should be a valid integer" in table and "job-text" in table
    listed = json.loads(run(settings, "dead-letters", "list", "--json", "--since", "1h", "--worker", "square").stdout)
    assert {each["reason"] for each in listed} == set(letters)
    assert not any("value" in each for each in listed)
    assert json.loads(run(settings, "dead-letters", "list", "--json", "--until", "1h").stdout) == []
    newest = run(settings, "dead-letters", "list", "--json", "--limit", "1")
    assert len(json.loads(newest.stdout)) == 1
    assert "2 older ones are not shown" in run(settings, "dead-letters", "list", "--limit", "1").stderr

    strange = run(settings, "dead-letters", "list", "--worker", "sqare", "--reason", "poisson")
    assert strange.stdout == "No dead letter matches.\n"
    assert "No worker is named 'sqare'. Defined are: square." in strange.stderr
    assert "No reason is named 'poisson'. There are: undecodable, worker_unknown, " in strange.stderr
    known = run(settings, "dead-letters", "list", "--worker", "square", "--reason", "poison")
    assert (known.stdout, known.stderr) == ("No dead letter matches.\n", "")

    shown = run(settings, "dead-letters", "show", nonsense.place).output
    assert "no job" in shown and "square/0/1" in shown and "own: b'header'" in shown
    assert not {"\x1b", "\x07"} & set(table + shown)
    raw = run(settings, "dead-letters", "show", nonsense.place, "--raw")
    assert raw.stdout_bytes == nonsense.value
    whole = json.loads(run(settings, "dead-letters", "show", "job-text", "--json").stdout)
    assert (whole["jobId"], json.loads(whole["value"])["args"]) == ("job-text", {"number": "four"})
    assert (whole["attempt"], whole["errorType"]) == (0, "headrace.errors.ArgumentsInvalid")
    assert "no dead letter '3/99999'" in run(settings, "dead-letters", "show", "3/99999", exits=2).output

    # Nothing is redriven that nobody chose or confirmed.
    assert "Say which" in run(settings, "dead-letters", "redrive", exits=2).output
    assert "Redrive 3 dead letters?" in run(settings, "dead-letters", "redrive", "--all", exits=1, typed="n\n").output
    dry = run(settings, "dead-letters", "redrive", "--all", "--dry-run", exits=1)
    assert "3 failed." in dry.output and "its bytes are no job" in dry.output and "No worker named 'cube'" in dry.output
    assert len(_queue(settings)) == 3
    refused = run(settings, "dead-letters", "redrive", "--all", "--yes", "--args", '{"number": 4}', exits=2)
    assert "--args is for one dead letter, and these are 3" in refused.output

    done = run(settings, "dead-letters", "redrive", bad.place, "--args", '{"number": 4}', typed="y\n").output
    assert "1 redriven." in done
    again = run(settings, "dead-letters", "redrive", "--job", "job-text", "--yes", "--args", '{"number": 4}').output
    assert "1 already redriven." in again and "queued" in again
    given = ("--to", "square", "--args", '{"number": 5}', "--yes", "--json")
    [made] = json.loads(run(settings, "dead-letters", "redrive", nonsense.place, *given).stdout)
    [moved] = json.loads(run(settings, "dead-letters", "redrive", elsewhere.place, *given).stdout)
    assert (made["outcome"], moved["job"]["retryOf"]) == ("redriven", "job-else")
    assert len(_queue(settings)) == 6

    chosen = ("--worker", "square", "--reason", "arguments_invalid", "--since", "1h", "--yes")
    once_more = run(settings, "dead-letters", "redrive", *chosen, terminal=True)
    assert "1 already redriven." in once_more.stdout
    assert "redriving" in once_more.stderr and "1/1" in once_more.stderr, "people see how far it is"
    assert "redriving" not in run(settings, "dead-letters", "redrive", *chosen).stderr
    assert "No dead letter matches" in run(settings, "dead-letters", "redrive", *chosen[:-3], "--until", "1h", "--yes").output
    assert "No dead letter matches." in run(settings, "dead-letters", "redrive", "--reason", "poison", "--yes").output

    async def results() -> list[tuple[str | None, Any]]:
        async with engine_with(settings, Square), Client(settings) as client:
            jobs = [job for job in (await client.list_jobs()).jobs if job.id not in ("job-text", "job-else")]
            return sorted([(job.retry_of, (await ended(client, job)).result) for job in jobs], key=repr)

    assert asyncio.run(results()) == [("job-else", 25), ("job-text", 16), (None, 25)]


def test_more_dead_letters_than_are_held_at_once_are_redriven_once(settings: Settings) -> None:
    count = 230

    async def bury() -> None:
        quick = with_engine(settings, commit_interval_seconds=0.1)
        async with engine_with(quick, Square):
            await _write(quick, [_record(f"job-{number}", {"number": "x"}) for number in range(count)])

            async def buried() -> bool:
                return (await committed(quick, "square")).get(0) == count

            await eventually(buried)
        # The next version of the worker takes them.
        async with engine_with(quick, Anything):
            pass

    asyncio.run(bury())
    assert f"{count} can be redriven." in run(settings, "dead-letters", "redrive", "--worker", "square", "--dry-run").output
    assert f"{count} redriven." in run(settings, "dead-letters", "redrive", "--worker", "square", "--yes").output
    assert f"{count} already redriven." in run(settings, "dead-letters", "redrive", "--all", "--yes").output
    assert len(_queue(settings)) == 2 * count


def test_a_failed_job_is_retried(settings: Settings) -> None:
    async def fail() -> Job:
        square = Square()
        square.broken = True
        async with engine_with(settings, square) as engine, Client(settings) as client:
            return await ended(client, await engine.enqueue("square", {"number": 3}, {"userId": "u"}))

    failed = asyncio.run(fail())
    assert failed.status == "failed"
    told = run(settings, "jobs", "retry", failed.id).output
    again = json.loads(run(settings, "jobs", "retry", failed.id, "--json").stdout)
    assert told == f"Job {failed.id} is done anew, by job {again['id']}: it is queued.\n"
    assert (again["retryOf"], again["ctx"]) == (failed.id, {"userId": "u"})
    assert "There is no job 'nothing'" in run(settings, "jobs", "retry", "nothing", exits=2).output

    async def finish() -> Job:
        async with engine_with(settings, Square), Client(settings) as client:
            return await ended(client, await client.retry_job(failed.id))

    done = asyncio.run(finish())
    assert (done.id, done.status, done.result) == (again["id"], "completed", 9)
    told = run(settings, "jobs", "retry", failed.id).output
    assert told == f"Job {failed.id} was done anew already, by job {done.id}: it is completed.\n"
    assert "has not failed: it is completed" in run(settings, "jobs", "retry", done.id, exits=2).output
    assert len(_queue(settings)) == 2


def _queue(settings: Settings) -> list[Any]:
    return asyncio.run(read_all(settings, Topics(settings.namespace).jobs_name("square")))


def test_the_program_in_the_documentation_redrives(settings: Settings) -> None:
    [program] = [block.code for block in blocks(ROOT / "docs" / "dead-letters.md", "python")]
    names: dict[str, Any] = {}
    exec(program, names)

    async def follow() -> list[int]:
        await _bury(settings)
        async with engine_with(settings, Anything):
            return [await names["redrive_yesterdays"](settings) for _ in range(2)]

    assert asyncio.run(follow()) == [1, 0]
    [first, second] = [orjson.loads(record.value or b"") for record in _queue(settings) if b"job-text" in (record.value or b"")]
    assert (first["id"], second["retryOf"], second["args"]) == ("job-text", "job-text", {"number": "four"})
