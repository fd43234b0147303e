"""`headrace replay job` and `replay stream` on an export, as a user types them, with workers of the user's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from headrace.replay.exports.exporting import export_span
from headrace.replay.history import Span, Wanted
from headrace.replay.recorded.log_history import LogHistory
from support.written_jobs import Engines

FILE = "jobs.jsonl.gz"
PRINTS = """
from headrace import JobContext, worker

print("imported")

@worker
def send_digest(args: dict, ctx: JobContext) -> dict:
    print("in a thread")
    return {"sent": True}
"""


class Shell:
    """Runs commands in a folder that has the export of two jobs, one completed and one failed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, module: str, code: str) -> None:
        (self.folder / f"{module}.py").write_text(textwrap.dedent(code))

    def replay(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "headrace", "replay", *words, "--file", FILE],
            cwd=self.folder, env={**os.environ, "COLUMNS": "200"}, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip


@pytest.fixture
async def shell(tmp_path: Path, engines: Engines, history: LogHistory) -> Shell:
    epoch = engines.claim("one", -1)
    for job_id in ("done", "failed"):
        engines.enqueue(job_id, args={"to": ["ann"]})
        engines.run(job_id, epoch)
    engines.complete("done", {"sent": True})
    engines.fail("failed")
    await export_span(history, Wanted(span=Span(0, 100_000)), tmp_path / FILE)
    return Shell(tmp_path)


@pytest.mark.parametrize("words", [("job", "done"), ("stream",)])
async def test_what_workers_print_does_not_mix_with_the_json(shell: Shell, words: tuple[str, ...]) -> None:
    shell.write("prints", PRINTS)
    done = shell.replay(*words, "prints", "--json")
    assert isinstance(json.loads(done.stdout), dict)
    assert "imported" in done.stderr and "in a thread" in done.stderr


async def test_of_an_id_that_ran_twice_the_newest_is_run_again_and_that_is_said(
    shell: Shell, engines: Engines, history: LogHistory
) -> None:
    shell.write("prints", PRINTS)
    once = shell.replay("job", "failed", "prints", "--json")
    assert "jobs had the id" not in once.stderr
    engines.snapshots.pop("failed")
    engines.enqueue("failed", args={"to": ["ann"]})
    engines.run("failed", 0)
    engines.complete("failed", {"sent": True})
    await export_span(history, Wanted(span=Span(0, 100_000)), shell.folder / FILE, overwrite=True)
    done = shell.replay("job", "failed", "prints", "--json")
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (0, "same"), done.stderr
    assert "2 jobs had the id failed, one after another: this is the newest." in done.stderr


@pytest.mark.parametrize(
    ("where", "said"), [("args.to=ann", "by args.to: that was redacted in"), ("status=faild", "Did you mean failed?")]
)
async def test_what_jobs_cannot_be_chosen_by_is_told(shell: Shell, history: LogHistory, where: str, said: str) -> None:
    shell.write("prints", PRINTS)
    await export_span(history, Wanted(span=Span(0, 100_000)), shell.folder / FILE, overwrite=True, redact=["args.to"])
    done = shell.replay("stream", "prints", "--where", where)
    assert (done.returncode, done.stdout) == (2, "") and said in done.stderr


SHIPPED_NAME = """
from headrace import AbstractWorker, JobContext

class Own(AbstractWorker[dict]):
    name = "memory_compaction_worker"

    def run(self, args: dict, ctx: JobContext) -> None: ...
"""


@pytest.mark.parametrize("words", [("job", "done"), ("stream",)])
async def test_two_workers_of_one_name_are_refused_and_both_are_named(shell: Shell, words: tuple[str, ...]) -> None:
    shell.write("one", PRINTS)
    shell.write("two", PRINTS)
    shell.write("shipped", SHIPPED_NAME)
    done = shell.replay(*words, "one", "two")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Two workers are named 'send_digest', one:send_digest and two:send_digest: " in done.stderr
    done = shell.replay(*words, "shipped")
    assert done.returncode == 2
    assert "'memory_compaction_worker', shipped:Own and headrace." in done.stderr
    # The same one twice is one.
    assert shell.replay(*words, "one", "one:send_digest").returncode == 0


FITS = """
from pydantic import BaseModel
from headrace import JobContext, worker

class Digest(BaseModel):
    to: list[str]
    copies: int = 1

@worker
def send_digest(args: Digest, ctx: JobContext) -> dict:
    if not args.to:
        raise ValueError("to nobody")
    return {"sent": args.copies == 1}
"""


async def test_what_was_set_is_told_and_the_verdict_is_not_on_todays_code(shell: Shell) -> None:
    shell.write("fits", FITS)
    told = shell.replay("job", "failed", "fits", "--set", "args.to.1=bob", "--set", "ctx.userId=eve")
    assert 'Changed args.to.1: nothing -> "bob"' in told.stdout
    assert 'Changed ctx.userId: "ann" -> "eve"' in told.stdout
    assert "With other arguments it completes." in told.stdout and "Newly fixed" not in told.stdout
    assert (told.returncode, told.stderr) == (1, "")
    assert "With other arguments it fails." in shell.replay("job", "done", "fits", "--set", "args.to=[]").stdout
    refused = shell.replay("job", "done", "fits", "--set", "args.to=5").stdout
    assert "The other arguments are not accepted." in refused and "no longer accepted" not in refused
    assert json.loads(shell.replay("job", "done", "fits", "--set", "args.copies=2", "--json").stdout)["changed"] == [
        "args.copies"
    ]


TELLS = """
from headrace import JobContext, worker

@worker
def send_digest(args: dict, ctx: JobContext) -> str | None:
    print("it ran")
    return ctx.job.ctx.user_id
"""


async def test_a_user_may_be_named_like_a_number(shell: Shell) -> None:
    shell.write("tells", TELLS)
    for written, user in (("42", "42"), ("true", "true"), ('"42"', "42"), ("bob", "bob"), ("null", None)):
        told = json.loads(shell.replay("job", "done", "tells", "--set", f"ctx.userId={written}", "--json").stdout)
        assert (told["replayed"]["status"], told["replayed"]["result"]) == ("completed", user)
        assert (told["replayed"]["error"], told["recorded"]["error"]) == (None, None), "as `replay stream --json` has it"


@pytest.mark.parametrize("written", ["ctx.userId=", "ctx.conversationId=" + "x" * 2000], ids=["empty", "long"])
async def test_what_is_no_valid_job_is_refused_before_it_runs(shell: Shell, written: str) -> None:
    shell.write("tells", TELLS)
    told = shell.replay("job", "done", "tells", "--set", written)
    assert (told.returncode, told.stdout) == (2, "")
    name = written.partition("=")[0]
    assert told.stderr.startswith(f"Error: With another {name} it is no valid job: {name}: String should ")
    assert "it ran" not in told.stderr


async def test_a_name_that_the_arguments_do_not_know_is_told(shell: Shell) -> None:
    shell.write("fits", FITS)
    told = shell.replay("job", "failed", "fits", "--set", "args.copys=2")
    assert "--set args.copys=... changes nothing: " in told.stderr
    assert "Newly fixed" in told.stdout, "the worker got what it had then"
    assert "--set args.copys" in shell.replay("job", "failed", "fits", "--set", "args.copys=2", "--json").stderr


RENAMED = PRINTS.replace("def send_digest", "def send_summary")


async def test_who_names_a_module_is_asked_whether_its_worker_was_renamed(shell: Shell) -> None:
    shell.write("renamed", RENAMED)
    told = shell.replay("stream", "renamed", "--fail-on", "newly-failing,different")
    assert told.returncode == 2
    assert "(memory_compaction_worker, send_summary) none has recorded jobs. Recorded are those of: send_digest." in told.stderr
    assert "Was a worker renamed? " in told.stderr and "--fail-on not-in-code" in told.stderr
    assert "Name the module" not in told.stderr
    assert shell.replay("stream", "renamed", "--fail-on", "not-in-code").returncode == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--where", "userId=bob,status=failed"], "None of the 2 jobs in the span has userId=bob, status=failed.\n"),
        (["--where", "userId=bob", "--to", "1970-01-01T00:00:00.001Z"], "No recorded job is in that span.\n"),
        (["--to", "1970-01-01T00:00:00.001Z"], "No recorded job is in that span.\n"),
    ],
    ids=["fields", "fields and no job", "no job"],
)
async def test_where_no_job_is_replayed_it_says_why(shell: Shell, words: list[str], expected: str) -> None:
    shell.write("prints", PRINTS)
    told = shell.replay("stream", "prints", *words)
    assert (told.returncode, told.stdout) == (0, expected), told.stderr


async def test_who_names_no_module_is_told_to(shell: Shell) -> None:
    told = shell.replay("stream")
    assert told.returncode == 2
    assert told.stderr.endswith("Recorded are those of: send_digest. Name the module of your workers, such as my_app.workers.\n")
