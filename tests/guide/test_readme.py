"""README.md, done word for word: its worker, its commands, its programs."""

from __future__ import annotations

import json
import re
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.markdown import ROOT, blocks
from support.processes import processes_naming, wait_until
from support.terminal import Command, Terminal, opened_terminal

README = ROOT / "README.md"


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """A folder that holds every file of README.md, under the name that it is given there."""
    for block in blocks(README, "python"):
        assert block.file is not None, f"README.md does not say what this file is called:\n{block.code}"
        path = tmp_path / block.file
        path.parent.mkdir(exist_ok=True)
        path.write_text(block.code)
    with opened_terminal(tmp_path) as opened:
        yield opened


def curl(command: str, gateway: str) -> Any:
    """What a curl command of README.md is answered, wherever the gateway happens to be."""
    program, *words = shlex.split(command.replace("\\\n", " "))
    headers, body, url = {}, None, ""
    given = iter(words)
    for word in given:
        if word == "-H":
            name, _, value = next(given).partition(": ")
            headers[name] = value
        elif word == "-d":
            body = next(given)
        elif word != "-s":
            url = word
    assert program == "curl"
    assert url.startswith("http://127.0.0.1:8787/"), "README.md names the gateway's usual address"
    address = gateway + url.removeprefix("http://127.0.0.1:8787")
    response = httpx.request(
        "GET" if body is None else "POST", address, headers=headers, content=body, timeout=30, trust_env=False
    )
    assert response.status_code == 200, response.text
    return response.json()


def gateway_of(dev: Command) -> str:
    """The address that `headrace dev` prints."""
    dev.wait_for("Ctrl-C ends")
    found = re.search(r"gateway +(http://[\d.:]+)/tools", dev.output)
    assert found is not None, dev.output
    return found[1]


def live_instances(gateway: str) -> dict[str, int]:
    answer = httpx.post(f"{gateway}/tools/worker_manager", json={"action": "list_workers"}, timeout=30, trust_env=False).json()
    return {worker["name"]: worker["liveInstances"] for worker in answer["data"]["workers"]}


def test_everything_that_it_says_works(terminal: Terminal) -> None:
    commands = [block.code for block in blocks(README, "bash")]
    dev_command = next(code for code in commands if code.startswith("headrace dev"))
    schedule, look = (code for code in commands if code.startswith("curl"))
    promised = json.loads(blocks(README, "json")[0].code)

    dev = terminal.start(*shlex.split(dev_command))
    gateway = gateway_of(dev)
    each_once = {"count_words": 1, "memory_compaction_worker": 1, "send_digest": 1}
    wait_until(lambda: live_instances(gateway) == each_once, "each worker is there once")

    # An agent asks for a digest, gets the receipt that README.md shows, and sees later what became of it.
    receipt = curl(schedule, gateway)
    job_id = receipt["data"]["jobId"]
    assert receipt == promised | {"data": promised["data"] | {"jobId": job_id}}
    assert len(job_id) == len(promised["data"]["jobId"])
    wait_until(lambda: curl(look, gateway)["data"]["jobs"][0]["status"] == "completed", "the digest is sent")
    jobs = curl(look, gateway)["data"]["jobs"]
    assert [(job["id"], job["ctx"]["conversationId"]) for job in jobs] == [(job_id, "morning")]

    # A program finds the broker of its folder.
    assert terminal.run("python", "enqueue.py").startswith("completed {'to': 'grace', 'sent': 1, 'at': ")

    # An engine in a program of one's own shares the work, and ends when it is told to.
    engine = terminal.start("python", "run_engine.py")
    wait_until(lambda: live_instances(gateway)["send_digest"] == 2, f"the second engine lives: {engine.output}", seconds=30)
    engine.wait_for("INFO:headrace.engine.engine:engine ")  # it says what it runs
    engine.process.send_signal(signal.SIGTERM)
    assert engine.process.wait(60) == 0, engine.output
    wait_until(lambda: live_instances(gateway)["send_digest"] == 1, "the second engine has said that it is gone")

    assert dev.interrupt() == 0, dev.output
    assert "Traceback" not in dev.output
    assert processes_naming(terminal.folder) == []

    # The next start finds its data again.
    again = terminal.start(*shlex.split(dev_command))
    gateway = gateway_of(again)
    wait_until(lambda: [job["id"] for job in curl(look, gateway)["data"]["jobs"]] == [job_id], "the old job is listed")
    assert again.interrupt() == 0, again.output
