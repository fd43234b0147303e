"""Jobs that ran on a real broker are run again from its log, by the command, and nothing of the live system changes."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from headrace import Client, Job, Memory, MemoryCompactionWorker, NewEntry, Settings
from headrace.replay import Rerunner, Verdict
from headrace.replay.recorded.log_history import open_history
from support.clusters import state_of
from support.engines import ended, engine_process, engine_with, eventually, read_all, snapshots_of
from support.processes import wait_until
from support.replay_shell import Shell

SAMPLE = files("headrace").joinpath("samples/second-bakery.conversation.json")

WORKERS = """
import asyncio
import json
import os
import time

from pydantic import BaseModel

from headrace import AbstractWorker, JobContext, Retry, RetryPolicy, worker


class Order(BaseModel):
    items: list[str]
    price: int = 2


@worker
async def sells(args: Order, ctx: JobContext) -> dict:
    ctx.progress(0.5, "half")
    rate = await ctx.recorded("rate", lambda: {"rate": 3, "at": os.getpid()})
    await ctx.enqueue("packs", {"items": len(args.items)})
    await ctx.memory.append("ann", "orders", [{entry}(role="user", content="sold")])
    total = sum(len(item) for item in args.items) * args.price * rate["rate"]
    return {"total": total, "at": ctx.now().isoformat(), "attempt": ctx.attempt}


@worker
def packs(args: dict, ctx: JobContext) -> int:
    if args.get("items", 0) > 2:
        raise ValueError(f"{args['items']} are too many")
    return args["items"]


@worker
def reads(args: dict, ctx: JobContext) -> dict:
    return json.loads(args["text"])


@worker(executor="process")
def weighs(args: dict, ctx: JobContext) -> int:
    return args["grams"] // args["items"]


@worker(retry=RetryPolicy(max_attempts=2, initial=0.01))
async def flaky(args: dict, ctx: JobContext) -> int:
    if ctx.attempt == 1:
        raise ConnectionError("once")
    return ctx.attempt


class Limited(Exception):
    def __init__(self, response: dict) -> None:
        super().__init__(response)
        self.response = response

    def __str__(self) -> str:
        return f"limited, {self.response['code']}"


@worker
async def asks(args: dict, ctx: JobContext) -> str:
    def outside() -> None:
        if ctx.replaying:
            raise AssertionError("a replay asks nobody")
        raise TimeoutError("late") if args["n"] == 1 else Limited({"code": 7})

    try:
        return await ctx.recorded("model", outside)
    except TimeoutError as error:
        return f"did without: {error}"


@worker(timeout=0.2)
async def slow(args: dict, ctx: JobContext) -> None:
    await asyncio.sleep(30)
""".replace("{entry}", "NewEntry").replace("AbstractWorker, JobContext", "JobContext, NewEntry")


@asynccontextmanager
async def ran(settings: Settings, shell: Shell, jobs: list[tuple[str, dict[str, Any]]]) -> AsyncIterator[list[Job]]:
    """The jobs, which have ended in an engine that runs no more."""
    with engine_process(settings, shell.file) as engine:
        async with Client(settings) as client:
            await eventually(lambda: _defined(client, {name for name, _ in jobs}))
            accepted = [await client.enqueue(name, args, {"userId": "ann"}) for name, args in jobs]
            found = [await ended(client, job) for job in accepted]
        assert engine.terminate() == 0
    yield found


async def _defined(client: Client, names: set[str]) -> bool:
    return names <= set(await client.worker_definitions(fresh_within=5))


@pytest.fixture
def shell(settings: Settings, tmp_path: Path) -> Shell:
    return Shell(settings, tmp_path / "shop", WORKERS)


async def test_what_ran_is_run_again_and_nothing_changes(settings: Settings, shell: Shell) -> None:
    jobs: list[tuple[str, dict[str, Any]]] = [
        ("sells", {"items": ["pen", "ink"]}),
        ("packs", {"items": 5}),
        ("weighs", {"grams": 10, "items": 0}),
        ("flaky", {}),
        ("slow", {}),
        ("asks", {"n": 1}),
        ("asks", {"n": 2}),
    ]
    async with ran(settings, shell, jobs) as [sold, packed, weighed, flaky, slow, did_without, limited]:
        assert [job.status for job in (sold, packed, weighed, flaky, slow)] == [
            "completed", "failed", "failed", "completed", "failed",
        ]  # fmt: skip
        before = await state_of(settings)

        told = json.loads(shell.replay(sold.id, "shop", "--json"))
        assert (told["verdict"], told["attempt"]) == ("same", 1)
        assert told["replayed"]["result"] == sold.result == told["recorded"]["result"]
        [child] = told["effects"]["enqueued"]
        children = [json.loads(record.value or b"") for record in await read_all(settings, f"{settings.namespace}.jobs.packs")]
        assert child["id"] in [each["id"] for each in children if each.get("parentId") == sold.id]
        assert [each["did"] for each in told["effects"]["memory"]] == ["append"]
        assert told["effects"]["progress"] == [{"fraction": 0.5, "text": "half"}]

        told = json.loads(shell.replay(did_without.id, "shop", "--json"))
        assert (told["verdict"], told["replayed"]["result"]) == ("same", "did without: late")
        told = json.loads(shell.replay(limited.id, "shop", "--json"))
        assert (told["verdict"], told["replayed"]["error"]["message"]) == ("same", "limited, 7")

        for job, kind in ((packed, "ValueError"), (weighed, "ZeroDivisionError"), (slow, "headrace.errors.JobTimeout")):
            told = json.loads(shell.replay(job.id, "shop", "--json"))
            assert (told["verdict"], told["replayed"]["error"]["type"]) == ("same", kind)
        assert json.loads(shell.replay(flaky.id, "shop", "--json"))["replayed"]["result"] == 2
        first = json.loads(shell.replay(flaky.id, "shop", "--attempt", "1", "--json"))
        assert (first["verdict"], first["replayed"]["error"]["message"]) == ("same", "once")

        shown = shell.replay(packed.id, "shop", "--set", "args.items=2", code=1)
        assert "With other arguments it completes." in shown and "5 are too many" in shown and "completed" in shown
        shown = shell.replay(sold.id, "shop", "--set", "args.price=5", code=1)
        assert f"result.total: {6 * 2 * 3} -> {6 * 5 * 3}" in shown
        assert "It would have, and in this replay did not:" in shown and "enqueued" in shown and "ann/orders" in shown

        shell.export("jobs.jsonl.gz")
        elsewhere = Shell(settings.model_copy(update={"bootstrap_servers": "127.0.0.1:1"}), shell.folder, WORKERS)
        told = json.loads(elsewhere.replay(sold.id, "shop", "--file", "jobs.jsonl.gz", "--json"))
        assert (told["verdict"], told["replayed"]["result"]) == ("same", sold.result), "without the cluster"
        assert [each["did"] for each in told["effects"]["memory"]] == ["append"]

        shell.write(WORKERS.replace('ctx.recorded("rate"', 'ctx.recorded("another rate"'))
        shown = shell.replay(sold.id, "shop")
        assert "Not comparable: today's code asks for 'another rate', number 0, which was not recorded" in shown
        assert "NotRecorded" in shown and "--live asks outside for it" in shown
        assert "been handed 'another rate', number 0" in shown
        live = json.loads(shell.replay(sold.id, "shop", "--live", "--json"))
        assert live["verdict"] == "same", "the result does not depend on it"
        assert live["effects"]["askedOutside"] == [{"name": "another rate", "number": 0}]

        shell.write(WORKERS.replace("    price: int = 2", "    price: int = 2\n    customer: str"))
        shown = shell.replay(sold.id, "shop", code=1)
        assert "no longer accepted" in shown and "customer: Field required" in shown
        assert await state_of(settings) == before, "offsets, configurations and groups of the live system"


async def test_the_debugger_opens_where_a_job_fails(settings: Settings, shell: Shell) -> None:
    async with ran(settings, shell, [("packs", {"items": 5}), ("packs", {"items": 1})]) as [failed, completed]:
        shown = shell.replay(failed.id, "shop", "--pdb", stdin="p ('in the debugger', args['items'])\nwhere\nq\n")
        assert "(Pdb)" in shown and "('in the debugger', 5)" in shown and "raise ValueError" in shown
        assert "(Pdb)" not in shell.replay(completed.id, "shop", "--pdb")


async def test_the_debugger_begins_in_the_workers_code(settings: Settings, shell: Shell) -> None:
    async with ran(settings, shell, [("reads", {"text": "{no json"})]) as [failed]:
        shown = shell.replay(failed.id, "shop", "--pdb", stdin="p ('here', args['text'])\ndown\np ('there', s)\nq\n")
    assert "('here', '{no json')" in shown, "the frame of the worker"
    assert "('there', '{no json')" in shown, "that of json.loads, below it"
    assert shown.rindex("return json.loads") < shown.index("('here'") < shown.rindex("json/__init__.py")


BLOCKING = """
import os
import time
from pathlib import Path

from headrace import JobContext, worker


def blocks(args: dict, ctx: JobContext) -> None:
    if ctx.replaying:
        Path(args["begun"]).write_text("begun")
        time.sleep(600)


waits = worker(name="waits")(blocks)
waits_late = worker(name="waits_late", timeout=float(os.environ.get("WAITS_AT_MOST", "60")))(blocks)
"""


STUCK = """
import asyncio
import os
import time

from headrace import JobContext, worker

limit = float(os.environ.get("WAITS_AT_MOST", "60"))


@worker(timeout=limit)
def counts_on(args: dict, ctx: JobContext) -> None:
    turns = 0
    while ctx.replaying and turns < 100_000:
        turns += 1
        rests(args["for"])


def rests(seconds: float) -> None:
    time.sleep(seconds)


@worker(timeout=limit)
async def stays(args: dict, ctx: JobContext) -> None:
    while ctx.replaying:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass
"""


async def test_the_debugger_opens_where_a_function_stands_that_goes_on_after_its_time(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = Shell(settings, tmp_path / "shop", STUCK)
    async with ran(settings, shell, [("counts_on", {"for": 600}), ("stays", {})]) as [stuck, stubborn]:
        assert [stuck.status, stubborn.status] == ["completed", "completed"]
        monkeypatch.setenv("WAITS_AT_MOST", "0.5")
        commands = "p ('here', seconds)\nup\np ('above', turns, args['for'])\nq\n"
        done = shell.debugged(stuck.id, "shop", "--pdb", stdin=commands)
        assert (done.returncode, "('here', 600)" in done.stdout, "('above', 1, 600)" in done.stdout) == (1, True, True), (
            done.stdout
        )
        assert "time.sleep(seconds)" in done.stdout
        assert done.stderr.splitlines()[-2:] == [
            "It stood here when its time was over, and goes on in its thread: the values are those of now.",
            "It goes on in a thread, which ends with this command.",
        ]
        done = shell.debugged(stubborn.id, "shop", "--pdb", stdin="")
        assert (done.returncode, "(Pdb)" in done.stdout) == (1, False)
        assert "Nothing to debug: its time was over, and where it stood then cannot be known.\n" in done.stderr


async def test_a_function_in_a_thread_does_not_hold_the_command_up(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell, begun = Shell(settings, tmp_path / "shop", BLOCKING), tmp_path / "begun"
    args = {"begun": str(begun)}
    async with ran(settings, shell, [("waits", args), ("waits_late", args)]) as [endless, late]:
        assert [endless.status, late.status] == ["completed", "completed"]
        monkeypatch.setenv("WAITS_AT_MOST", "0.5")
        shown = shell.replay(late.id, "shop", code=1)
        assert "Newly failing" in shown and "JobTimeout" in shown
        begun.unlink()
        command = shell.start(endless.id, "shop")
        try:
            wait_until(begun.exists, "the attempt has begun", seconds=60)
            command.send_signal(signal.SIGINT)
            _, told = command.communicate(timeout=60)
        finally:
            command.kill()
        assert (command.returncode, told) == (130, "Interrupted.\n")


async def test_what_cannot_be_replayed_is_told_in_a_line(settings: Settings, shell: Shell) -> None:
    async with ran(settings, shell, [("packs", {"items": 1})]) as [job]:
        before = await state_of(settings)
        assert "nothing-like-it" in shell.refused("nothing-like-it", "shop")
        assert "'packs', which is not in the code that was loaded. Loaded are: memory_compaction_worker." in shell.refused(job.id)
        assert "no attempt 7" in shell.refused(job.id, "shop", "--attempt", "7")
        assert "leads nowhere" in shell.refused(job.id, "shop", "--set", "args.items.x=1")
        assert "no path" in shell.refused(job.id, "shop", "--set", "id=1")
        assert "has no value" in shell.refused(job.id, "shop", "--set", "args.items")
        assert "cannot be imported" in shell.refused(job.id, "no_such_module")
        assert await state_of(settings) == before


async def test_the_memory_is_as_it_was_at_the_jobs_time(settings: Settings) -> None:
    compacts = MemoryCompactionWorker(settings)
    async with Memory(settings) as memory:
        await memory.import_conversation(str(SAMPLE))
        async with engine_with(settings, compacts) as engine, Client(settings) as client:
            args = {"userId": "mara", "conversationId": "second-bakery", "title": "Second bakery"}
            job = await ended(client, await engine.enqueue("memory_compaction_worker", args))
            text = await ended(client, await engine.enqueue("memory_compaction_worker", {**args, "content": "A word. " * 400}))
            assert (job.status, text.status) == ("completed", "completed")
        # What came later is not of that time.
        await memory.append("mara", "second-bakery", [NewEntry(role="user", content="Later, and long. " * 500)])
        before = await state_of(settings)
        async with open_history(settings) as history, Rerunner(history, [MemoryCompactionWorker(settings)]) as rerunner:
            for each in (job, text):
                rerun = await rerunner.rerun(await history.find(each.id))
                assert rerun.comparison.verdict is Verdict.SAME, (rerun.recorded, rerun.replayed)
                assert rerun.replayed.result["compacted"] is True
        assert [write["did"] for write in rerun.effects.to_json()["memory"]] == ["append", "compact"]
        assert await state_of(settings) == before


INTERRUPTED = """
import os
import signal

from headrace import JobContext, worker


@worker
async def pays(args: dict, ctx: JobContext) -> dict:
    def asks() -> str:
        with open(args["bill"], "a") as bill:
            bill.write(f"attempt {ctx.attempt}\\n")
        return f"paid by attempt {ctx.attempt}"

    answer = await ctx.recorded("model", asks, reuse=True)
    if ctx.attempt == 1:
        # Between the record and what is made of it.
        os.kill(os.getpid(), signal.SIGKILL)
    return {"answer": answer, "attempt": ctx.attempt}
"""


async def test_what_was_paid_before_a_crash_is_not_paid_again_and_the_crash_is_replayed(
    settings: Settings, tmp_path: Path
) -> None:
    shell, bill = Shell(settings, tmp_path / "shop", INTERRUPTED), tmp_path / "bill"
    with engine_process(settings, shell.file) as engine:
        async with Client(settings) as client:
            await eventually(lambda: _defined(client, {"pays"}))
            job = await ended(client, await client.enqueue("pays", {"bill": str(bill)}))
        assert engine.terminate() == 0
    assert bill.read_text() == "attempt 1\n"
    assert job.result == {"answer": "paid by attempt 1", "attempt": 2}
    assert [each["status"] for each in await snapshots_of(settings, job.id)][-1] == "completed"
    shell.write(INTERRUPTED.replace("os.kill", "print"))
    told = json.loads(shell.replay(job.id, "shop", "--json"))
    assert (told["verdict"], told["attempt"]) == ("same", 2)
    told = json.loads(shell.replay(job.id, "shop", "--attempt", "1", "--json"))
    assert (told["verdict"], told["recorded"]) == ("not-comparable", None)
    assert told["replayed"]["result"] == {"answer": "paid by attempt 1", "attempt": 1}
    assert bill.read_text() == "attempt 1\n"
