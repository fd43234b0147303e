"""The whole system in one terminal: `headrace dev` keeps what it was told, and `headrace demo` tells the truth."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from headrace.broker import Broker
from headrace.kafka.log import KafkaLog
from headrace.settings import Settings
from support.dev import check_ephemeral_dev
from support.markdown import ROOT, blocks
from support.processes import processes_naming, wait_until
from support.terminal import Command, Terminal, opened_terminal

GATEWAY_PAGE = ROOT / "docs" / "gateway.md"

WORKERS = """
import asyncio

from headrace import worker


@worker(category="test", description="Greets.")
async def greet(args, ctx):
    return f"hello {args['name']}"


@worker(category="test", description="Never ends by itself.")
async def wait(args, ctx):
    await asyncio.Event().wait()
"""


# Returns when the job runs.
ENQUEUE = """
import asyncio
from headrace import Client

async def main():
    async with Client() as client:
        job = await client.enqueue("wait", {}, {"userId": "u1"})
        while job.status != "running":
            await asyncio.sleep(0.02)
            job = await client.get_job(job.id) or job

asyncio.run(main())
"""


# What was done before it was caught is done again, so often at most.
TRIES = 10


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    with opened_terminal(tmp_path) as opened:
        (opened.folder / "my_workers.py").write_text(WORKERS)
        yield opened


def call(dev: Command, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The data of a tool's answer, from the gateway whose address `dev` printed."""
    address = re.search(r"gateway +(http://[\d.:]+)/tools", dev.output)
    assert address is not None, dev.output
    answer = httpx.post(f"{address[1]}/tools/{tool}", json=arguments, timeout=30, trust_env=False).json()
    assert answer["ok"], answer
    data: dict[str, Any] = answer["data"]
    return data


def java_starts(terminal: Terminal, command: Command) -> None:
    """Returns when the broker of a command begins to start, or the command has ended unseen."""
    wait_until(lambda: processes_naming(terminal.folder) != [] or command.process.poll() is not None, "Java is starting")


def test_dev_runs_own_workers_on_free_ports_and_keeps_its_data(terminal: Terminal) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        terminal.environment["HEADRACE_GATEWAY_PORT"] = str(taken.getsockname()[1])
        dev = terminal.start("headrace", "dev", "my_workers")
        dev.wait_for("Ctrl-C ends")
        receipt = call(dev, "scheduler", {"kind": "greet", "args": {"name": "Ada"}, "userId": "u1"})
        assert receipt["workerName"] == "greet"

        def all_are_live() -> bool:
            workers = call(dev, "worker_manager", {"action": "list_workers"})["workers"]
            live = {each["name"]: each["liveInstances"] for each in workers}
            return live == {"greet": 1, "wait": 1, "memory_compaction_worker": 1}

        wait_until(all_are_live, "its engine runs all workers")

        def completed() -> bool:
            jobs = call(dev, "worker_manager", {"action": "list_jobs", "userId": "u1"})["jobs"]
            return [(job["id"], job["status"]) for job in jobs] == [(receipt["jobId"], "completed")]

        wait_until(completed, "the job is completed", seconds=30)
        assert dev.interrupt() == 0, dev.output
    assert "Traceback" not in dev.output
    assert processes_naming(terminal.folder) == []
    assert "Ending ..." in dev.output, "no job runs that would be given time"

    again = terminal.start("headrace", "dev", "my_workers")
    again.wait_for("Ctrl-C ends")

    def listed() -> bool:
        return [job["id"] for job in call(again, "worker_manager", {"action": "list_jobs"})["jobs"]] == [receipt["jobId"]]

    wait_until(listed, "the old job is listed")
    assert again.interrupt() == 0, again.output
    assert processes_naming(terminal.folder) == []


def test_the_demo_shows_the_main_job_and_says_when_it_did_not_work(terminal: Terminal) -> None:
    output = terminal.run("headrace", "demo", seconds=120)
    for expected in (
        '"kind":"memory_compaction"',
        '"scheduled":true',
        "completed",
        "list_jobs",
        "list_workers",
        "Done:",
        "The demo took",
    ):
        assert expected in output
    before, after = re.search(r"entries\s+│?\s*(\d+)\s+│?\s*(\d+)", output).groups()  # type: ignore[union-attr]
    assert int(before) >= 150 > int(after)
    # With room for everything there is nothing to compact: the job completes, and the memory does not shrink.
    terminal.environment["HEADRACE_MEMORY_TOKEN_BUDGET"] = "1000000"
    useless = terminal.start("headrace", "demo")
    assert useless.process.wait(120) == 1, useless.output
    assert "has not shrunk" in useless.output
    assert processes_naming(terminal.folder) == []


def test_a_demo_that_is_interrupted_says_no_more_than_that(terminal: Terminal) -> None:
    terminal.environment["TMPDIR"] = str(terminal.folder)
    for _ in range(TRIES):
        demo = terminal.start("headrace", "demo")
        java_starts(terminal, demo)
        if demo.process.poll() is None and demo.interrupt() != 0:
            break
    assert demo.process.poll() == 130, demo.output
    assert demo.output.endswith("Interrupted.\n")
    assert "Traceback" not in demo.output and "The demo took" not in demo.output
    assert processes_naming(terminal.folder) == []


def test_an_ephemeral_dev_leaves_nothing(terminal: Terminal) -> None:
    check_ephemeral_dev(terminal)


def test_dev_ends_when_its_broker_does(terminal: Terminal) -> None:
    dev = terminal.start("headrace", "dev", "--ephemeral")
    dev.wait_for("Ctrl-C ends")
    java = [each for each in psutil.Process(dev.process.pid).children(recursive=True) if each.name() == "java"]
    assert java
    for each in java:
        each.kill()
    assert dev.process.wait(60) == 1, dev.output
    assert "The broker ended by itself." in dev.output
    assert "Traceback" not in dev.output


def test_a_dev_that_joined_a_broker_ends_when_that_is_gone(terminal: Terminal) -> None:
    first = terminal.start("headrace", "dev")
    first.wait_for("Ctrl-C ends")
    second = terminal.start("headrace", "dev")
    second.wait_for("Ctrl-C ends")
    assert f"started for this folder by process {first.process.pid}" in second.output
    assert "Engine and gateway have joined the broker that runs already" in second.output
    assert "start in another folder, or set HEADRACE_DATA_DIRECTORY" in second.output
    assert "have joined" not in first.output
    assert "Ctrl-C ends both, and not the broker." in second.output
    terminal.environment["HEADRACE_DATA_DIRECTORY"] = str(terminal.folder / "apart")
    apart = terminal.start("headrace", "dev")
    apart.wait_for("Ctrl-C ends")
    assert "have joined" not in apart.output
    assert apart.interrupt() == 0, apart.output
    assert first.interrupt() == 0, first.output
    assert second.process.wait(90) == 1, second.output
    assert "which another command of this folder ran, is gone" in second.output
    assert "Traceback" not in second.output
    assert processes_naming(terminal.folder) == []


def test_dev_answers_the_kafka_producer_of_the_docs(terminal: Terminal) -> None:
    [block] = [each for each in blocks(GATEWAY_PAGE, "python") if each.file == "call_by_record.py"]
    (terminal.folder / "call_by_record.py").write_text(block.code)
    [commands] = [each.code for each in blocks(GATEWAY_PAGE, "bash") if "call_by_record.py" in each.code]
    of_dev, of_program = commands.splitlines()
    name, _, value = of_dev.removesuffix(" headrace dev").partition("=")
    terminal.environment[name] = value
    dev = terminal.start("headrace", "dev")
    dev.wait_for("Ctrl-C ends")
    name = of_program.partition("=")[0]
    [address] = re.findall(r"broker .*?(127[.]0[.]0[.]1:[0-9]+)", dev.output)
    terminal.environment[name] = address
    answered = json.loads(terminal.run(sys.executable, "call_by_record.py"))
    assert (answered["ok"], answered["data"]["scheduled"]) == (True, True)
    assert dev.interrupt() == 0, dev.output


def test_dev_ends_with_its_terminal(terminal: Terminal) -> None:
    dev = terminal.start("headrace", "dev", "--ephemeral")
    dev.wait_for("Ctrl-C ends")
    dev.process.send_signal(signal.SIGHUP)
    assert dev.process.wait(60) == 0, dev.output
    assert processes_naming(terminal.folder) == []


def test_ctrl_c_breaks_off_the_start_of_dev(terminal: Terminal) -> None:
    for _ in range(TRIES):
        dev = terminal.start("headrace", "dev", "my_workers")
        java_starts(terminal, dev)
        assert dev.interrupt() == 0, dev.output
        if "/tools" not in dev.output:
            break
    assert "/tools" not in dev.output
    assert "Traceback" not in dev.output
    assert processes_naming(terminal.folder) == []


@pytest.mark.parametrize("command", [("dev", "my_workers"), ("engine", "my_workers")])
def test_ctrl_c_ends_a_start_that_waits_for_a_broker(terminal: Terminal, command: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        terminal.environment["KAFKA_BOOTSTRAP_SERVERS"] = f"127.0.0.1:{silent.getsockname()[1]}"
        terminal.environment["HEADRACE_KAFKA_CONNECT_TIMEOUT_SECONDS"] = "600"
        started = terminal.start("headrace", *command)
        silent.settimeout(60)
        with silent.accept()[0]:  # it has connected, and will never be answered
            assert started.interrupt(seconds=30) == 0, started.output
    assert "Traceback" not in started.output


@pytest.mark.parametrize("command", ["dev", "engine"])
def test_a_second_ctrl_c_ends_running_jobs(terminal: Terminal, broker: Broker, namespace: str, command: str) -> None:
    terminal.environment |= {
        "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "HEADRACE_NAMESPACE": namespace,
        "HEADRACE_ENGINE_GRACE_SECONDS": "600",
        "HEADRACE_GATEWAY_PORT": "0",
    }
    first = terminal.start("headrace", command, "my_workers")
    first.wait_for("Ctrl-C ends" if command == "dev" else "runs greet, wait")
    terminal.run(sys.executable, "-c", ENQUEUE)
    first.process.send_signal(signal.SIGINT)
    first.wait_for("600 s; a second Ctrl-C ends them at once")
    assert first.process.poll() is None
    assert first.interrupt(seconds=30) == 0, first.output
    assert "Traceback" not in first.output
    assert ("Ending: the running job gets 600 s" if command == "dev" else " has ended") in first.output


def test_a_demo_whose_job_fails_says_so(terminal: Terminal, settings: Settings) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # it does not listen: whoever connects is refused
        terminal.environment |= {
            "KAFKA_BOOTSTRAP_SERVERS": str(settings.bootstrap_servers),
            "HEADRACE_MEMORY_SUMMARISER": "openai",
            "HEADRACE_OPENAI_BASE_URL": f"http://127.0.0.1:{nobody.getsockname()[1]}/v1",
            "HEADRACE_OPENAI_API_KEY": "none",
            "HEADRACE_OPENAI_MODEL": "none",
        }
        demo = terminal.start("headrace", "demo")
        assert demo.process.wait(120) == 1, demo.output
    assert "The job is failed:" in demo.output
    assert "Traceback" not in demo.output
    assert demo_topics(settings) == set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_interrupted_leaves_nothing(terminal: Terminal, settings: Settings, number: signal.Signals) -> None:
    terminal.environment |= {"KAFKA_BOOTSTRAP_SERVERS": str(settings.bootstrap_servers), "TMPDIR": str(terminal.folder)}
    for _ in range(TRIES):
        demo = terminal.start("headrace", "demo")
        demo.wait_for("gateway  http")
        demo.process.send_signal(number)
        if demo.process.wait(60) != 0:
            break
    assert demo.process.returncode == 130, demo.output
    assert "Interrupted." in demo.output and "The demo took" not in demo.output
    assert "Traceback" not in demo.output
    assert "Done:" not in demo.output
    assert list(terminal.folder.glob("headrace-*")) == []
    assert demo_topics(settings) == set()


def demo_topics(settings: Settings) -> set[str]:
    """What demos have left on the broker."""

    async def names() -> set[str]:
        log = KafkaLog(settings)
        try:
            return {name for name in await log.topic_names() if name.startswith("demo-")}
        finally:
            await log.close()

    return asyncio.run(names())
