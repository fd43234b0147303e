"""The tutorial of docs/replay.md, done word for word: from a failed job to the fixed one."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.markdown import ROOT, Block, blocks
from support.processes import wait_until
from support.terminal import Terminal, opened_terminal

DOCUMENT = ROOT / "docs" / "replay.md"
WORKERS = "my_app/workers.py"
PROGRAMS = ("send_hours.py", "check.py", "look.py")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    (tmp_path / "my_app").mkdir()
    with opened_terminal(tmp_path) as opened:
        yield opened


def files() -> list[Block]:
    """The files of the tutorial, in their order."""
    return [block for block in blocks(DOCUMENT, "python") if block.file in (WORKERS, *PROGRAMS)]


def commands() -> Iterator[list[str]]:
    """The commands of the tutorial, in their order."""
    for block in blocks(DOCUMENT, "bash"):
        for line in block.code.splitlines():
            yield shlex.split(line)


def test_the_line_that_is_mended_is_told() -> None:
    broken, _, mended, *_ = files()
    before, after = broken.code.splitlines(), mended.code.splitlines()
    [changed] = [new.strip() for old, new in zip(before, after, strict=True) if old != new]
    assert f"becomes `{changed}`;" in DOCUMENT.read_text(encoding="utf-8")


def test_everything_that_it_says_works(terminal: Terminal) -> None:
    broken, sender, mended, *others = files()
    assert [block.file for block in files()] == [WORKERS, PROGRAMS[0], WORKERS, *PROGRAMS[1:]]
    for block in (broken, sender, *others):
        (terminal.folder / str(block.file)).write_text(block.code)
    said = commands()

    def next_of(*beginning: str) -> list[str]:
        command = next(said)
        assert command[: len(beginning)] == list(beginning)
        return [job if word == "JOB" else word for word in command]

    job = "JOB"
    dev_command = next_of("headrace", "dev")
    dev = terminal.start(*dev_command)
    dev.wait_for("Ctrl-C ends")

    sent = dict(line.split() for line in terminal.run(*next_of("python", "send_hours.py")).splitlines())
    assert list(sent.values()) == ["completed", "failed", "completed"]
    [job] = [job_id for job_id, status in sent.items() if status == "failed"]
    assert job in terminal.run(*next_of("headrace", "jobs"))

    timeline = terminal.run(*next_of("headrace", "timeline", "JOB"))
    places = [timeline.find(word) for word in ("accepted", "started", "recordings.rate.0", "failed (1)")]
    assert places == sorted(places) and -1 not in places, timeline

    replay = next_of("headrace", "replay", "job", "JOB")
    same = terminal.run(*replay)
    assert "Same." in same
    assert "longest = max(args.hours)" in same

    (terminal.folder / WORKERS).write_text(mended.code)
    assert next_of("headrace", "replay", "job", "JOB") == replay
    fixed = terminal.start(*replay)
    assert fixed.process.wait(60) == 1
    assert "Newly fixed: it failed, and completes now." in fixed.output

    table = terminal.run(*next_of("headrace", "replay", "stream"))
    assert counts_in(table) == counts_in(promised_table()) | {"slower": counts_in(table)["slower"]}
    assert "1 × invoice: ValueError: max() arg is an empty sequence" in table

    checked = terminal.run("python", "check.py")
    assert checked.startswith("1 job: {'newly-fixed': 1"), checked
    assert f"invoice ValueError: max() arg is an empty sequence {job}" in checked

    looked = terminal.run("python", "look.py", job)
    assert "newly-fixed {'total': 0" in looked
    assert f"('{job}', 'failed', " in looked
    exported = terminal.start("headrace", "replay", "stream", "my_app.workers", "--file", "failed.jsonl.gz", "--json")
    assert exported.process.wait(60) == 0, exported.output
    assert json.loads(exported.output)["counts"]["newly-fixed"] == 1

    assert dev.interrupt() == 0, dev.output
    again = terminal.start(*dev_command)
    again.wait_for("Ctrl-C ends")
    terminal.run(*next_of("headrace", "jobs", "retry", "JOB"))

    def retry_has_ended() -> bool:
        return "completed" in terminal.run("headrace", "timeline", job)

    wait_until(retry_has_ended, "the retry of the failed job has completed", seconds=60)
    assert again.interrupt() == 0, again.output


def promised_table() -> str:
    [block] = [block for block in blocks(DOCUMENT, "text") if "jobs replayed" in block.code]
    return block.code


def counts_in(table: str) -> dict[str, int]:
    """How many jobs of each category a table shows."""
    return {name: int(count) for count, name in re.findall(r"^(\d+) +([a-z-]+) ", table, re.MULTILINE)}
