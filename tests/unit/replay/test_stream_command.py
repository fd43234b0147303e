"""What `headrace replay stream` says of options that make no sense, before it talks to any broker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headrace.cli import replay_stream
from headrace.cli.main import application
from headrace.replay.exports.export_format import ExportHeader, ExportWriter
from headrace.replay.facade import MOST_THREADS, StreamRequest
from headrace.replay.history import Span
from headrace.replay.recorded.wanted import parse_fields
from headrace.replay.streams.pacing import Order, Pacing
from support.markdown import ROOT
from support.recorded import recorded_job

STREAM = ["stream", "support.replay_workers", "--from", "1h"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stream", "support.replay_workers"], "Say from when on jobs are to be replayed"),
        (["stream", "support.replay_workers", "--from", "yesterday"], "--from 'yesterday' is no time"),
        ([*STREAM, "--to", "2h"], "the span is empty"),
        ([*STREAM, "--speed", "fast"], "--speed 'fast' is none"),
        ([*STREAM, "--speed", "0"], "--speed '0' is none"),
        ([*STREAM, "--fail-on", "failing"], "There is no category 'failing'"),
        ([*STREAM, "--fail-on", ""], "--fail-on '' names no category, so that nothing would be checked: name some of same, "),
        ([*STREAM, "--fail-on", " , "], "--fail-on ' , ' names no category"),
        ([*STREAM, "--keep"], "--keep keeps a sandbox"),
        ([*STREAM, "--sandbox", "--order", "log"], "leave out --order log"),
        ([*STREAM, "--where", "failed"], "is no field with its value"),
        ([*STREAM, "--where", "args.title=a,b"], "no value can have a comma"),
        (
            [*STREAM, "--where", "state=failed"],
            "--where 'state': jobs have no field 'state'. Did you mean status? They have args, ",
        ),
        ([*STREAM, "--where", "user.id=ada"], "jobs have no field 'user'. Did you mean userId? They have args, attempt, "),
        ([*STREAM, "--where", "xxx=ada"], "jobs have no field 'xxx'. They have args, attempt, "),
        (["stream", "support.nothing_of_that_name", "--from", "1h"], "'support.nothing_of_that_name' cannot be imported"),
        (["stream", "support.replay_workers", "--file", "there-is-none.jsonl.gz"], "there-is-none.jsonl.gz"),
    ],
)
def test_it_says_what_is_wrong(words: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    result = CliRunner().invoke(application, ["replay", *words])
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_every_field_that_jobs_have_can_be_asked_for() -> None:
    texts = ["status=failed,tenant=acme,userId=ada", "conversationId=trip,args.kind=a,ctx.source=b", "result.x=1,error.type=E"]
    assert len(parse_fields([*texts, "workerName=count", "orderingKey=k", "schemaVersion=1", "parentId=p"])) == 12


@pytest.mark.parametrize(
    ("words", "pacing"),
    [
        ([], Pacing(concurrency=100, order=Order.KEY, speed=None)),
        (["--speed", "max"], Pacing(concurrency=100, order=Order.KEY, speed=None)),
        (["--speed", "10", "--concurrency", "7", "--order", "log"], Pacing(concurrency=7, order=Order.LOG, speed=10.0)),
    ],
)
def test_jobs_are_paced_as_it_is_told(words: list[str], pacing: Pacing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    asked: list[StreamRequest] = []

    async def heard(_: object, request: StreamRequest, *__: object) -> int:
        asked.append(request)
        return 0

    monkeypatch.setattr(replay_stream, "_replay", heard)
    result = CliRunner().invoke(application, ["replay", *STREAM, *words])
    assert result.exit_code == 0, result.output
    assert [request.pacing for request in asked] == [pacing]


def exported_jobs(file: Path, *workers: str) -> None:
    """An export of ten seconds with a job of each worker, of their second second."""
    with ExportWriter(file) as writer:
        for number, worker in enumerate(workers, 1):
            job = recorded_job(number, worker=worker)
            place = {"topic": job.source.topic, "partition": job.source.partition, "offset": job.offset}
            writer.add("job", **place, acceptedAt=job.accepted_at, record=job.record, snapshot=job.snapshot)
        writer.finish(ExportHeader(namespace="headrace", span=Span(0, 10_000), counts=writer.counts))


def test_a_check_that_had_nothing_to_judge_is_not_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLAY_MODE", "")
    file = tmp_path / "one.jsonl.gz"
    exported_jobs(file, "count")
    words = ["replay", "stream", "support.replay_workers", "--file", str(file), "--json"]
    nothing = CliRunner().invoke(application, [*words, "--fail-on", "newly-failing", "--where", "status=failed"])
    assert (nothing.exit_code, nothing.stdout) == (2, "")
    assert "--fail-on had nothing to judge: no recorded job of count is in that span" in nothing.stderr
    judged = CliRunner().invoke(application, [*words, "--fail-on", "newly-failing", "--where", "status=completed"])
    assert judged.exit_code == 0, judged.output
    assert CliRunner().invoke(application, [*words, "--where", "status=failed"]).exit_code == 0, "nobody asked for a judgement"


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        (1, "The one job in the span has not status=failed, userId=bob.\n"),
        (2, "None of the 2 jobs in the span has status=failed, userId=bob.\n"),
        (0, "No recorded job is in that span.\n"),
    ],
)
def test_where_no_job_has_the_fields_it_is_said_how_many_there_are(
    jobs: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLAY_MODE", "")
    file = tmp_path / "some.jsonl.gz"
    exported_jobs(file, *["count"] * (jobs or 1))
    words = ["--where", "status=failed,userId=bob", *(() if jobs else ("--to", "1970-01-01T00:00:00.001Z"))]
    told = CliRunner().invoke(application, ["replay", "stream", "support.replay_workers", "--file", str(file), *words])
    assert (told.exit_code, told.stdout) == (0, said)


SHIPPED = "memory_compaction_worker"
NOTHING = (2, "")
FAILED = (1, {"jobs": 0, "not-in-code": 1})


@pytest.mark.parametrize(
    ("recorded", "words", "expected"),
    [
        (["count", "tally"], [], (0, {"jobs": 1, "not-in-code": 1})),
        (["count", "tally"], ["--fail-on", "newly-failing"], (0, {"jobs": 1, "not-in-code": 1})),
        (["count", "tally"], ["--fail-on", "newly-failing,not-in-code"], (1, {"jobs": 1, "not-in-code": 1})),
        (["count", "tally"], ["--fail-on", "not-in-code", "--worker", "count"], (0, {"jobs": 1, "not-in-code": 0})),
        (["count", "tally"], ["--fail-on", "not-in-code", "--where", "workerName=count"], (0, {"jobs": 1, "not-in-code": 0})),
        (["count", "tally"], ["--fail-on", "not-in-code", "--where", "workerName=tally"], FAILED),
        (["count", "tally"], ["--fail-on", "different", "--where", "workerName=tally"], NOTHING),
        (["count"], ["--fail-on", "not-in-code"], (0, {"jobs": 1, "not-in-code": 0})),
        (["tally"], [], NOTHING),
        (["tally"], ["--fail-on", "different"], NOTHING),
        (["tally"], ["--fail-on", "not-in-code"], FAILED),
        (["tally"], ["--fail-on", "not-in-code", "--to", "1970-01-01T00:00:01Z"], NOTHING),
        ([SHIPPED], [], (0, {"jobs": 1, "not-in-code": 0})),
        ([SHIPPED], ["--fail-on", "different"], NOTHING),
        ([SHIPPED], ["--fail-on", "different", "--worker", SHIPPED], (0, {"jobs": 1, "not-in-code": 0})),
        ([SHIPPED, "tally"], ["--fail-on", "different"], NOTHING),
        ([SHIPPED, "tally"], ["--fail-on", "not-in-code"], (1, {"jobs": 1, "not-in-code": 1})),
        ([SHIPPED, "count"], ["--fail-on", "different"], (0, {"jobs": 2, "not-in-code": 0})),
        ([SHIPPED, "count"], ["--fail-on", "different", "--no-shipped"], (0, {"jobs": 1, "not-in-code": 1})),
    ],
)  # fmt: skip
def test_a_check_is_one_of_jobs_whose_worker_is_in_the_code(
    recorded: list[str], words: list[str], expected: tuple[int, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLAY_MODE", "")
    file = tmp_path / "some.jsonl.gz"
    exported_jobs(file, *recorded)
    told = CliRunner().invoke(application, ["replay", "stream", "support.replay_workers", "--file", str(file), "--json", *words])
    summary = json.loads(told.stdout) if told.stdout else None
    found = "" if summary is None else {"jobs": summary["jobs"], "not-in-code": summary["counts"]["not-in-code"]}
    assert (told.exit_code, found) == expected, told.output


def test_who_names_no_module_checks_what_comes_with_headrace(tmp_path: Path) -> None:
    file = tmp_path / "one.jsonl.gz"
    exported_jobs(file, SHIPPED)
    assert CliRunner().invoke(application, ["replay", "stream", "--file", str(file), "--fail-on", "different"]).exit_code == 0


def test_a_check_over_nothing_says_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLAY_MODE", "")
    file = tmp_path / "some.jsonl.gz"
    exported_jobs(file, SHIPPED, "tally")
    told = CliRunner().invoke(
        application, ["replay", "stream", "support.replay_workers", "--file", str(file), "--fail-on", "different"]
    )
    assert told.stderr == (
        "Error: --fail-on had nothing to judge: no recorded job of count is in that span, with what --where and --worker say."
        " 1 job of tally: not in the loaded code.\n"
    )


def test_the_help_says_that_a_new_question_is_checked_by_nothing() -> None:
    shown = CliRunner().invoke(application, ["replay", "stream", "--help"], env={"COLUMNS": "400", "TERM": "dumb"})
    assert "not-in-code. A job that meets a new `ctx.recorded` is not-comparable, and so checked by nothing" in shown.stdout


@pytest.mark.parametrize(
    ("span", "jobs", "message"),
    [
        ([], 1, ""),
        (["--to", "now"], 1, ""),
        (["--from", "1970-01-01T00:00:00Z"], 1, ""),
        (["--to", "1970-01-01T00:00:10Z"], 1, ""),
        (["--to", "1970-01-01T00:00:00.001Z"], 0, ""),
        (["--to", "1970-01-01T00:00:10.001Z"], None, "1970-01-01T00:00:10.000Z: end there"),
        (["--to", "1970-01-01T00:00:00Z"], None, "the span is empty"),
        (["--from", "1h"], None, "begin before that"),
    ],
    ids=["all", "now", "from", "end", "part", "beyond", "empty", "after"],
)
def test_a_span_in_an_export_is_that_of_the_export_or_within(
    span: list[str], jobs: int | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLAY_MODE", "")
    file = tmp_path / "one.jsonl.gz"
    exported_jobs(file, "count")
    told = CliRunner().invoke(application, ["replay", "stream", "support.replay_workers", "--file", str(file), "--json", *span])
    if jobs is None:
        assert (told.exit_code, told.stdout) == (2, "")
        assert message in told.stderr
    else:
        assert told.exit_code == 0, told.output
        assert json.loads(told.stdout)["jobs"] == jobs


def test_who_asks_for_more_threads_than_there_are_can_read_it() -> None:
    shown = CliRunner().invoke(application, ["replay", "stream", "--help"], env={"COLUMNS": "400", "TERM": "dumb"})
    assert "Jobs that run at a time; 200 at most of plain functions." in shown.stdout
    docs = (ROOT / "docs" / "replay.md").read_text(encoding="utf-8")
    assert f"Plain functions have a thread each, and there are {MOST_THREADS} at most." in docs
