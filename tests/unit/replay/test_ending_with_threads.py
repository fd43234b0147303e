"""Programs that end while functions run on in threads that a replay has left behind."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[2]
PROGRAM = """
import asyncio, sys, threading
sys.path.insert(0, {tests!r})

import uvloop
from headrace.replay import Rerunner
from support.histories import InMemoryHistory, recorded_job
from support.log import eventually
from support.reruns import DoesInThread

begun, never = threading.Event(), threading.Event()


def blocks(args, ctx):
    begun.set()
    never.wait()


class Around(DoesInThread):
    async def process_job(self, job, ctx=None):
        try:
            return await super().process_job(job, ctx)
        finally:
            print("given up", flush=True)


async def main():
{main}


loop_factory = {{"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}}[{loop!r}]
with asyncio.Runner(loop_factory=loop_factory) as runner:
    runner.run(main())
print("the loop has ended", flush=True)
"""
TIMED_OUT = """
async with Rerunner(InMemoryHistory(), [Around(blocks)]) as rerunner:
    told = await rerunner.rerun(recorded_job("does", attemptTimeout=0.05))
    print(told.replayed.error_type, rerunner.left_behind, flush=True)
print(rerunner.left_behind, flush=True)
"""
INTERRUPTED = """
async with Rerunner(InMemoryHistory(), [Around(blocks)]) as rerunner:
    task = asyncio.create_task(rerunner.rerun(recorded_job("does")))
    await eventually(begun.is_set, "its begin")
    task.cancel()
    await asyncio.wait([task])
    print(task.cancelled(), rerunner.left_behind, flush=True)
print(rerunner.left_behind, flush=True)
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize(
    ("main", "said"),
    [
        pytest.param(TIMED_OUT, "headrace.errors.JobTimeout 1", id="after its time"),
        pytest.param(INTERRUPTED, "True 1", id="interrupted"),
    ],
)
def test_neither_the_loop_nor_python_waits_for_them(loop: str, main: str, said: str) -> None:
    program = PROGRAM.format(tests=str(TESTS), main=textwrap.indent(main, "    "), loop=loop)
    command = [sys.executable, "-W", "error", "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout.splitlines() == [said, "given up", "1", "the loop has ended"], ended.stderr
    assert (ended.returncode, ended.stderr) == (0, "")
