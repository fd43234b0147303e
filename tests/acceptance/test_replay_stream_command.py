"""`headrace replay stream`, as a user types it."""

from __future__ import annotations

import asyncio
import io
import json
import re
import signal
from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path

import pytest

from headrace import Client, MemoryCompactionWorker, Settings
from headrace.cli import replay_stream
from headrace.cli.moments import parse_span
from headrace.kafka.log import KafkaLog
from headrace.replay import StreamRequest
from headrace.replay.sandboxes import removing
from support import renamed_workers, replay_workers
from support.clusters import state_of
from support.engines import ended, engine_with, with_engine
from support.log import plain_topic
from support.replay_commands import PATIENCE_SECONDS, STREAM, command, of_sandboxes, replay, started, with_jobs
from support.screens import Screen


@pytest.fixture
async def recorded(settings: Settings) -> Settings:
    """A namespace in which 30 jobs have ended, and no engine runs."""
    return await with_jobs(settings)


async def test_the_table_and_the_exit_code(recorded: Settings) -> None:
    before = await state_of(recorded)
    same = replay(recorded, "", *STREAM)
    assert same.returncode == 0, same.stderr
    assert same.stdout.startswith("30 jobs replayed in ")
    assert "30    same" in same.stdout

    failing = replay(recorded, "fail", *STREAM, "--fail-on", "newly-failing,slower")
    assert failing.returncode == 1, failing.stderr
    assert "15    newly-failing" in failing.stdout
    assert "15 × count: ValueError: odd: " in failing.stdout
    assert replay(recorded, "fail", *STREAM, "--fail-on", "newly-fixed").returncode == 0

    told = json.loads(replay(recorded, "fail", *STREAM, "--json", "--where", "userId=ada").stdout)
    assert (told["jobs"], told["counts"]["same"], told["counts"]["newly-failing"], told["interrupted"]) == (30, 15, 15, False)
    assert {"id", "workerName", "categories", "recorded", "replayed"} == set(told["notSame"][0])
    assert json.loads(replay(recorded, "", *STREAM, "--json", "--where", "userId=bob").stdout)["jobs"] == 0
    nothing = replay(recorded, "", *STREAM, "--where", "userId=bob,status=failed").stdout
    assert nothing == "None of the 30 jobs in the span has userId=bob, status=failed.\n"
    assert await state_of(recorded) == before


@pytest.mark.parametrize("where", [(), ("--sandbox",)], ids=["in process", "in a sandbox"])
async def test_what_was_not_recorded_is_asked_for_outside_only_where_that_is_allowed(
    recorded: Settings, tmp_path: Path, where: tuple[str, ...]
) -> None:
    notes = tmp_path / "notes"
    refused = json.loads(replay(recorded, "ask", *STREAM, *where, "--json", REPLAY_NOTES=str(notes)).stdout)
    assert (refused["counts"]["not-comparable"], refused["counts"]["same"], notes.exists()) == (30, 0, False)
    live = json.loads(replay(recorded, "ask", *STREAM, *where, "--live", "--json", REPLAY_NOTES=str(notes)).stdout)
    assert (live["counts"]["same"], live["jobs"]) == (30, 30)
    assert sorted(map(int, notes.read_text().split())) == list(range(30)), "each once"


@pytest.mark.parametrize("where", [(), ("--sandbox",)], ids=["in process", "in a sandbox"])
async def test_as_many_jobs_run_together_as_were_asked_for(recorded: Settings, tmp_path: Path, where: tuple[str, ...]) -> None:
    notes = tmp_path / "notes"
    variables = {"REPLAY_TOGETHER": "3", "REPLAY_NOTES": str(notes)}
    told = replay(recorded, "together", *STREAM, *where, "--concurrency", "3", "--json", **variables)
    assert json.loads(told.stdout)["counts"]["same"] == 30, told.stderr
    assert max(map(int, notes.read_text().split())) == 3


@pytest.fixture
async def screen() -> AsyncIterator[Screen]:
    screen = Screen()
    yield screen
    screen.close()


async def test_a_terminal_shows_how_far_it_is(recorded: Settings, tmp_path: Path, screen: Screen) -> None:
    gate = tmp_path / "gate"
    gate.write_text("5")
    variables = {"REPLAY_GATE": str(gate), "TERM": "xterm-256color"}
    with started(recorded, "gated", *STREAM, stderr=screen.of_command, **variables) as process:
        await screen.until(r"^Reading what was recorded; then the jobs run\.\s+replaying .* 5/30 ", within=PATIENCE_SECONDS)
        gate.write_text("10")
        shown = await screen.until(r"replaying .*10/30 +([\d,]+)/s 0:00:\d\d left: 0:(\d\d):(\d\d)", within=PATIENCE_SECONDS)
        assert 0 < int(shown[2]) * 60 + int(shown[3]) < 20 * PATIENCE_SECONDS
        assert process.poll() is None
        gate.write_text("30")
        await screen.until(r"replaying .*30/30 [\d,]+/s 0:\d\d:\d\d left: 0:00:00", within=PATIENCE_SECONDS)
        output, _ = await asyncio.to_thread(process.communicate, timeout=PATIENCE_SECONDS)
        assert output.startswith("30 jobs replayed in ")


@pytest.mark.parametrize(
    "words", [(), ("--sandbox", "--json", "--fail-on", "different")], ids=["in process, a table", "in a sandbox, JSON"]
)
async def test_what_is_interrupted_shows_what_came_of_the_jobs_so_far(
    recorded: Settings, tmp_path: Path, screen: Screen, words: tuple[str, ...]
) -> None:
    before, gate = await state_of(recorded), tmp_path / "gate"
    gate.write_text("10")
    variables = {"REPLAY_GATE": str(gate), "TERM": "xterm-256color"}
    with started(recorded, "gated", *STREAM, *words, stderr=screen.of_command, **variables) as process:
        await screen.until(r"replaying .* 10/30 ", within=PATIENCE_SECONDS)
        process.send_signal(signal.SIGINT)
        output, _ = await asyncio.to_thread(process.communicate, timeout=PATIENCE_SECONDS)
    await screen.until(r"Interrupted\.", within=PATIENCE_SECONDS)
    assert process.returncode == 130
    if words:
        told = json.loads(output)
        assert (told["interrupted"], told["jobs"], told["counts"]["same"]) == (True, 10, 10), output
    else:
        assert re.match(r"10 jobs replayed in \S+ s, \S+/s; then it was interrupted\n", output), output
        assert re.search(r"^10 +same ", output, re.MULTILINE), output
    assert await state_of(recorded) == before


async def test_where_nobody_looks_it_does_not_show_how_far_it_is(recorded: Settings) -> None:
    assert replay(recorded, "", *STREAM).stderr == ""


async def test_a_sandbox_that_is_kept_can_be_looked_at(recorded: Settings) -> None:
    before = await state_of(recorded)
    name = f"{recorded.namespace}.replay-mine"
    kept = replay(recorded, "", *STREAM, "--into", "mine", "--keep")
    assert kept.returncode == 0, kept.stderr
    assert "30    same" in kept.stdout
    assert kept.stderr == (
        f"Kept: the namespace {name}. Look at it by `headrace jobs --namespace {name}`, and remove it by"
        f" `headrace replay clean --namespace {recorded.namespace}`.\n"
    )
    inside = recorded.model_copy(update={"namespace": name})
    async with Client(inside) as client:
        assert len((await client.list_jobs(status="completed", limit=100)).jobs) == 30

    again = replay(recorded, "", *STREAM, "--into", name, "--keep")
    assert again.returncode == 2
    assert f"Error: '{name}' cannot be a sandbox: the cluster has {name}." in again.stderr
    assert "Kept" not in again.stderr

    assert f"Removed {name}." in replay(recorded, "", "clean").stdout
    assert await state_of(recorded) == before


class MadeAgain(KafkaLog):
    """A cluster in which somebody asks for the topics of a sandbox all the while, and the broker makes them."""

    async def delete_topics(self, names: Collection[str]) -> None:
        await super().delete_topics(names)
        await self.create_topics([plain_topic(name) for name in names if name.endswith(".job-state")])


@pytest.mark.parametrize("fails", [False, True], ids=["nothing else", "a check that fails"])
async def test_what_came_of_the_jobs_is_shown_though_the_sandbox_cannot_be_removed(
    recorded: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fails: bool
) -> None:
    """It ends with 2, also where a check would end it with 1, and says both."""
    monkeypatch.setenv("REPLAY_MODE", "fail" if fails else "")
    monkeypatch.setattr(removing, "_MOST_SECONDS", 2.0)
    monkeypatch.setattr("headrace.replay.facade.KafkaLog", MadeAgain)
    name, output, span = f"{recorded.namespace}.replay-mine", io.StringIO(), parse_span("1h", "now")
    request = StreamRequest(code=[replay_workers.Count()], span=span, sandbox=True, into=name)
    check = replay_stream._Check(("newly-failing", "different"), {"count"})
    assert await replay_stream._replay(recorded, request, check, replay_stream._Answer(output, as_json=False)) == 2
    assert re.search(r"^15 +same " if fails else r"^30 +same ", output.getvalue(), re.MULTILINE)
    told = capsys.readouterr().err
    also = "Also, --fail-on has found jobs: 15 newly-failing. Without what is left, that is exit code 1.\n"
    assert (also in told, "Also" in told) == (fails, fails)
    assert f"Error: The sandbox {name} is not removed: whenever {name}.job-state is deleted, it is made again" in told
    assert f"Removed {name}." in replay(recorded, "", "clean", "--all").stdout
    assert of_sandboxes(await state_of(recorded), recorded) == []


async def test_an_export_is_replayed_without_the_cluster(recorded: Settings, tmp_path: Path) -> None:
    file = tmp_path / "yesterday.jsonl.gz"
    exported = command(recorded, "", "export", "--from", "1h", "--output", str(file))
    assert exported.returncode == 0, exported.stderr
    nowhere = recorded.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})
    words = ["stream", "support.replay_workers", "--file", str(file)]
    told = replay(nowhere, "fail", *words, "--json")
    assert told.returncode == 0, told.stderr
    assert {name: count for name, count in json.loads(told.stdout)["counts"].items() if name != "slower" and count} == {
        "same": 15,
        "newly-failing": 15,
    }
    damaged = tmp_path / "damaged.jsonl.gz"
    damaged.write_bytes(file.read_bytes()[:-40])
    broken = replay(nowhere, "", "stream", "support.replay_workers", "--file", str(damaged))
    assert (broken.returncode, broken.stdout) == (2, "")
    assert str(damaged) in broken.stderr
    assert "Traceback" not in broken.stderr


WRONG: dict[str, tuple[Sequence[str], str]] = {
    "a worker that is not in the code": (
        ["stream", "support.replay_workers", "--worker", "tally", "--from", "1h"],
        "No worker of the code that was loaded is named 'tally'. Loaded are: count, memory_compaction_worker.",
    ),
    "a worker of which nothing is recorded": (
        [*STREAM, "--worker", "memory_compaction_worker"],
        "Nothing is recorded of a worker named 'memory_compaction_worker' in the namespace ",
    ),
    "a name that no namespace can have": ([*STREAM, "--into", "a/b"], "No sandbox can be named 'a/b'"),
    "a span before the log": (
        ["stream", "support.replay_workers", "--from", "2020-01-01T00:00:00Z", "--to", "2020-01-02T00:00:00Z"],
        "lies before the first job of count that is in the log: those that are there came from ",
    ),
    "a span that is to come": (
        ["stream", "support.replay_workers", "--from", "2999-01-01T00:00:00Z", "--to", "2999-01-02T00:00:00Z"],
        "is still to come. The last job of count that is in the log was accepted at ",
    ),
}


async def test_who_names_no_module_is_told_to(settings: Settings) -> None:
    async with engine_with(with_engine(settings, janitor=False), replay_workers.Count, MemoryCompactionWorker(settings)):
        pass
    told = replay(settings, "", "stream", "--from", "1h")
    expected = (
        "Of the workers that were loaded (memory_compaction_worker) none has recorded jobs. Recorded are those of: none. Name the"
        " module of your workers, such as my_app.workers."
    )
    assert (told.returncode, told.stderr) == (2, f"Error: {expected}\n")
    told = replay(settings, "", "stream", "support.replay_workers", "--worker", "count", "--from", "1h")
    assert (told.returncode, told.stderr) == (2, "Error: No job of count is in the log.\n")


@pytest.fixture
async def renamed(recorded: Settings) -> Settings:
    """The same namespace, in which a worker of a new name has done 5 further jobs, and one that comes with headrace a job."""
    workers = (renamed_workers.Counting, MemoryCompactionWorker(recorded))
    async with engine_with(with_engine(recorded, janitor=False), *workers), Client(recorded) as client:
        conversation = {"userId": "ada", "conversationId": "trip"}
        asked = [await client.enqueue("counting", {"number": number}, {"userId": "ada"}) for number in range(5)]
        for job in [*asked, await client.enqueue("memory_compaction_worker", conversation, conversation)]:
            await ended(client, job)
    return recorded


RENAMED = ("stream", "support.renamed_workers:Counting", "--from", "1h")


@pytest.mark.parametrize("where", ["in process", "in a sandbox", "from a file"])
async def test_jobs_of_a_worker_that_was_renamed_are_told_and_fail_a_check(renamed: Settings, tmp_path: Path, where: str) -> None:
    words: tuple[str, ...] = RENAMED + (("--sandbox",) if where == "in a sandbox" else ())
    if where == "from a file":
        file = str(tmp_path / "all.gz")
        assert command(renamed, "", "export", "--from", "1h", "--output", file).returncode == 0
        words = (*RENAMED[:2], "--file", file)
    before = await state_of(renamed)
    told = replay(renamed, "", *words, "--fail-on", "newly-failing,different")
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("6 jobs replayed in ")
    line = r"^30 +not-in-code +not replayed: the loaded code has no such worker\n  30 jobs of count: not in the loaded code\n"
    assert re.search(line, told.stdout, re.MULTILINE), told.stdout

    failing = replay(renamed, "", *words, "--fail-on", "not-in-code", "--json")
    assert failing.returncode == 1, failing.stderr
    summary = json.loads(failing.stdout)
    assert (summary["jobs"], summary["counts"]["not-in-code"], summary["workers"]["count"]["not-in-code"]) == (6, 30, 30)

    named = replay(renamed, "", *words, "--worker", "counting", "--fail-on", "not-in-code", "--json")
    assert (named.returncode, json.loads(named.stdout)["counts"]["not-in-code"]) == (0, 0), named.stderr
    assert await state_of(renamed) == before


async def test_a_check_passes_over_nothing_only_of_what_comes_with_headrace(renamed: Settings) -> None:
    """No job of the user's own worker is in the span, however many others are."""
    words = (*RENAMED, "--where", "workerName=memory_compaction_worker")
    nothing = replay(renamed, "", *words, "--fail-on", "different")
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert "--fail-on had nothing to judge: no recorded job of counting is in that span" in nothing.stderr
    asked_for = replay(renamed, "", *words, "--worker", "memory_compaction_worker", "--fail-on", "different")
    assert asked_for.returncode == 0, asked_for.stderr


async def test_where_all_was_renamed_a_check_for_it_says_so(recorded: Settings) -> None:
    failing = replay(recorded, "", *RENAMED, "--fail-on", "not-in-code")
    assert failing.returncode == 1, failing.stderr
    assert "  30 jobs of count: not in the loaded code\n" in failing.stdout
    other = replay(recorded, "", *RENAMED, "--fail-on", "newly-failing")
    assert (other.returncode, other.stdout) == (2, "")
    assert "(counting, memory_compaction_worker) none has recorded jobs. Recorded are those of: count." in other.stderr


async def test_bad_input_changes_nothing(recorded: Settings) -> None:
    before = await state_of(recorded)
    for what, (words, message) in WRONG.items():
        wrong = replay(recorded, "", *words)
        assert (wrong.returncode, wrong.stdout) == (2, ""), what
        assert message in wrong.stderr, what
        assert "Traceback" not in wrong.stderr, what
    assert await state_of(recorded) == before


async def test_no_live_system_starts_in_a_sandbox(recorded: Settings) -> None:
    name = f"{recorded.namespace}.replay-mine"
    assert replay(recorded, "", *STREAM, "--into", name, "--keep").returncode == 0
    before, inside = await state_of(recorded), recorded.model_copy(update={"namespace": name})
    for words in (("engine", "support.replay_workers"), ("gateway", "--port", "0"), ("keys", "create", "mine", "--all-users")):
        refused = command(inside, "", *words)
        assert refused.returncode == 2, words
        assert (
            f"The namespace {name} is named like the sandbox of a replay of jobs of {recorded.namespace}: " in refused.stderr
        ), words
        assert "Traceback" not in refused.stderr, words
    assert await state_of(recorded) == before
    assert f"Removed {name}." in replay(recorded, "", "clean").stdout
