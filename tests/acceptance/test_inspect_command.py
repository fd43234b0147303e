"""`headrace workers` and `headrace jobs`: what there is, also when its texts look like markup or command the terminal."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from headrace import JobContext, WorkerEngine, worker
from headrace.cli.main import application
from headrace.kafka.log import KafkaLog
from headrace.settings import Settings

CONTROLS = "\x1b]0;owned\x07"


@worker(category="[/b]", description=f"Fails [/b] with [red]style{CONTROLS}.")
async def fail(args: dict[str, Any], ctx: JobContext) -> None:
    raise ValueError(f"[/b] is no markup{CONTROLS}")


@worker(category="test", description="Greets.")
async def greet(args: dict[str, Any], ctx: JobContext) -> str:
    return "hello"


def ran(settings: Settings, *arguments: str, columns: int = 200) -> str:
    """What the command printed, warnings included, when it did what it was told."""
    return done(settings, *arguments, columns=columns).output


def json_of(settings: Settings, *arguments: str) -> Any:
    """The JSON that it printed, and nothing of what it said beside that."""
    return json.loads(done(settings, *arguments).stdout)


def done(settings: Settings, *arguments: str, columns: int = 200) -> Result:
    assert settings.bootstrap_servers is not None
    where = ("--bootstrap-servers", settings.bootstrap_servers, "--namespace", settings.namespace)
    result = CliRunner().invoke(application, [*arguments, *where], env={"COLUMNS": str(columns)})
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result


def test_workers_and_jobs_are_listed(settings: Settings) -> None:
    async def run_two() -> list[str]:
        engine = WorkerEngine(settings)
        engine.register_worker(fail)
        engine.register_worker(greet)
        async with engine, asyncio.timeout(60):
            ids = [(await engine.enqueue(name, {}, {"userId": "u1"})).id for name in ("fail", "greet")]
            while not all(job.finished_at for job in (await engine.list_jobs()).jobs):  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.02)
            return ids

    failed, completed = asyncio.run(run_two())

    workers = ran(settings, "workers")
    assert "Fails [/b] with [red]style]0;owned." in workers
    assert "Greets." in workers
    jobs = ran(settings, "jobs")
    assert jobs.index(completed) < jobs.index(failed), "newest first"
    assert "ValueError: [/b] is no markup]0;owned" in jobs
    assert not {"\x1b", "\x07"} & set(workers + jobs)

    assert failed not in ran(settings, "jobs", "--status", "completed")
    assert completed not in ran(settings, "jobs", "--worker", "fail")
    strange = ran(settings, "jobs", "--worker", "gret")
    assert "No worker is named 'gret'. Defined are: fail, greet." in strange and completed not in strange
    assert "No worker" not in ran(settings, "jobs", "--worker", "greet")
    created = json_of(settings, "job", completed)["createdAt"]
    assert created in jobs, "a time of the table is one that can be given back"
    since, until = (ran(settings, "jobs", option, created) for option in ("--since", "--until"))
    assert completed in since and failed not in since
    assert failed in until and completed not in until
    assert completed in ran(settings, "jobs", "--since", "2h")
    assert done(settings, "jobs", "--until", "2h").stdout == "No jobs match.\n"
    listed = json_of(settings, "jobs", "--json", "--limit", "1")["jobs"]
    assert [(job["id"], job["status"]) for job in listed] == [(completed, "completed")]
    described = json_of(settings, "workers", "--json")
    assert [(each["name"], each["backlog"], each["running"], each["failed"]) for each in described] == [
        ("fail", 0, 0, 1),
        ("greet", 0, 0, 0),
    ]
    assert done(settings, "jobs", "--status", "cancelled").stdout == "No cancelled jobs.\n"
    assert done(settings, "jobs", "--status", "failed", "--user", "u2").stdout == "No failed jobs match.\n"

    whole = json_of(settings, "job", failed)
    assert (whole["status"], whole["attempts"][0]["status"]) == ("failed", "failed")
    assert "Traceback" in whole["error"]["traceback"]
    assert json_of(settings, "job", completed)["result"] == "hello"
    narrow = ran(settings, "jobs", columns=80) + ran(settings, "workers", columns=80)
    assert failed in narrow and "completed" in narrow
    assert re.search(r"^ *greet +greet +\d+ ", narrow, re.MULTILINE), "what one types, and how many engines run it"


def test_a_job_that_there_is_not(settings: Settings) -> None:
    assert settings.bootstrap_servers is not None
    where = ("--bootstrap-servers", settings.bootstrap_servers, "--namespace", settings.namespace)
    result = CliRunner().invoke(application, ["job", "nothing", *where])
    assert (result.exit_code, "There is no job 'nothing'" in result.output) == (2, True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["jobs"], "No jobs.\n"),
        (["jobs", "--json"], {"jobs": [], "nextCursor": None}),
        (["workers"], "No workers are defined yet: an engine does that when it starts.\n"),
        (["workers", "--json"], []),
    ],
    ids=["jobs", "jobs as json", "workers", "workers as json"],
)
async def test_to_look_at_a_namespace_that_is_not_there_says_so_and_makes_nothing_of_it(
    settings: Settings, log: KafkaLog, words: list[str], expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_DATA_DIRECTORY", str(settings.data_directory))
    told = await asyncio.to_thread(done, settings, *words)
    assert (json.loads(told.stdout) if "--json" in words else told.stdout) == expected
    assert f"The cluster has no topic of the namespace {settings.namespace!r}: " in told.stderr
    assert not (settings.data_directory / "views" / settings.namespace).exists()
    assert [name for name in await log.topic_names() if name.startswith(f"{settings.namespace}.")] == []
