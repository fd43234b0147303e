"""A process that may be busy still is never given another attempt: no job gets what came of another."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace.engine.processes import connection
from headrace.engine.processes.connection import Answer, ChildProcess
from headrace.engine.processes.frames import Kind, frame
from support.memory_engines import Bench
from support.process_workers import Behaves
from unit.engine.test_processes import children, result_of, running


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_a_filter_of_the_program_that_raises_is_no_failure_of_the_attempt(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    def raises(record: logging.LogRecord) -> bool:
        raise LookupError("a context variable that is not set here")

    logger = logging.getLogger("elsewhere")
    async with running(bench, Behaves()):
        logger.addFilter(raises)
        try:
            job = await result_of(bench, "says-and-works")
        finally:
            logger.removeFilter(raises)
        assert (job.status, job.result) == ("completed", "its own")
        assert (await result_of(bench, "pid")).result in children()
    assert "a context variable that is not set here" in capsys.readouterr().err


async def test_a_process_whose_attempt_was_given_up_ends_with_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(_: object) -> None:
        raise LookupError("boom")

    async with running(bench, Behaves()):
        before = (await result_of(bench, "pid")).result
        with monkeypatch.context() as patched:
            patched.setattr(connection, "log_again", raises)
            failed = await result_of(bench, "says-and-works")
            assert failed.status == "failed" and failed.error is not None and failed.error.type == "LookupError"
        after = (await result_of(bench, "pid")).result
        assert after not in (before, os.getpid(), "its own") and children() == [after]


async def test_an_answer_for_another_attempt_is_nobody_s(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    original = ChildProcess.call

    async def call_twice(child: ChildProcess, call: dict[str, Any], *others: Any) -> Answer:
        assert child._writer is not None
        child._writer.write(frame(Kind.CALL, orjson.dumps({**call, "number": 99})))
        return await original(child, call, *others)

    async with running(bench, Behaves()):
        with monkeypatch.context() as patched:
            patched.setattr(ChildProcess, "call", call_twice)
            failed = await result_of(bench, "pid")
        assert failed.status == "failed" and failed.error is not None
        assert failed.error.message == "A process answered for call 99 while call 1 ran in it."
        assert (await result_of(bench, "pid")).result in children()
