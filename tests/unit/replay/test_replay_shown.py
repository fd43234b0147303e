"""What the terminal shows of a replayed job: what differs in colours, and others' texts as they are."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from headrace import JobContext, worker
from headrace.cli.replay_shown import show
from headrace.replay.history import RecordedJob
from headrace.replay.rerunning.rerun import Rerunner
from support.histories import InMemoryHistory, recorded_job

CONTROLS = "\x1b]0;owned\x07"


@worker
async def changes(args: dict[str, object], ctx: JobContext) -> dict[str, object]:
    ctx.progress(0.25, f"[b]a quarter{CONTROLS}")
    return args


@worker
async def fails(args: dict[str, object], ctx: JobContext) -> None:
    raise ValueError("today")


async def shown(recorded: object, args: dict[str, object], *, coloured: bool = False, width: int = 200) -> str:
    return await shown_of(recorded_job("changes", args, result=recorded), coloured=coloured, width=width)


async def shown_of(job: RecordedJob, *, coloured: bool, width: int = 200) -> str:
    async with Rerunner(InMemoryHistory(), [changes, fails]) as rerunner:
        rerun = await rerunner.rerun(job)
    out = io.StringIO()
    show(rerun, Console(file=out, force_terminal=coloured, color_system="standard" if coloured else None, width=width))
    return out.getvalue()


async def test_what_differs_is_coloured_and_what_is_the_same_is_not() -> None:
    told = await shown({"n": 1}, {"n": 2}, coloured=True)
    assert '\x1b[36m{"n":1}' in told and '\x1b[33m{"n":2}' in told
    assert "\x1b[31m" not in told and "\x1b[32m" not in told and "\x1b[33mDifferent." in told
    same = await shown({"n": 2}, {"n": 2}, coloured=True)
    assert "\x1b[31m" not in same and "\x1b[32mSame." in same


async def test_only_what_is_better_is_green() -> None:
    fixed = await shown_of(recorded_job("changes", {}, error=("ValueError", "no")), coloured=True)
    assert "\x1b[31mfailed" in fixed and "\x1b[32mcompleted" in fixed
    failing = await shown_of(recorded_job("fails", {}, result=1), coloured=True)
    assert "\x1b[32mcompleted" in failing and "\x1b[31mfailed" in failing and "\x1b[31mValueError: today" in failing
    otherwise = await shown_of(recorded_job("fails", {}, error=("ValueError", "then")), coloured=True)
    assert "\x1b[33mValueError: today" in otherwise and "\x1b[32m" not in otherwise


async def test_each_place_is_named_and_nobody_commands_the_terminal() -> None:
    told = await shown({"a": [1, 2], "b": 1}, {"a": [1, f"[/b]{CONTROLS}"]})
    assert 'result.a.1: 2 -> "[/b]\\u001b]0;owned\\u0007"' in told
    assert "result.b: 1 -> nothing" in told
    assert "said how far it is: 25% [b]a quarter]0;owned" in told
    assert not {"\x1b", "\x07"} & set(told)


async def test_of_much_the_beginning_is_told() -> None:
    told = await shown({str(n): n for n in range(50)}, {str(n): n + 1 for n in range(50)})
    assert told.count(" -> ") == 20 and "  and more" in told
    assert all(len(line) < 230 for line in told.splitlines() if not line.startswith("Result, "))


@pytest.mark.parametrize("coloured", [True, False])
async def test_a_result_that_the_table_cuts_is_shown_in_full_below(coloured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    long: dict[str, object] = {"text": "x" * 40}
    other: dict[str, object] = {"text": "y" * 80}
    told = await shown(long, other, coloured=coloured, width=80)
    assert (f'Result, recorded: {{"text":"{"x" * 40}"}}' in told) is coloured, "a pipe has room for it"
    assert f'Result, replayed: {{"text":"{"y" * 80}"}}' in told
    assert f'Result, both times: {{"text":"{"y" * 80}"}}' in await shown(other, other, coloured=coloured, width=80)
    assert "Result, " not in await shown({"n": 1}, {"n": 2}, coloured=coloured, width=80)


async def test_an_error_that_the_table_cuts_is_shown_in_full_below() -> None:
    told = await shown_of(recorded_job("changes", error=("ValueError", "max() of an empty list")), coloured=True, width=60)
    assert "Error, recorded: ValueError: max() of an empty list" in told
