"""What an engine writes with a dead letter: which attempt it was, and what was raised."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.errors import ArgumentsInvalid
from headrace.testing import StoredRecord
from support.log import eventually
from support.memory_engines import DEAD_LETTERS, Bench, GatedWorker
from support.virtual_time import in_virtual_time


class Strict(GatedWorker):
    """Takes no arguments any more, as a worker of a newer version may."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def parse_arguments(self, raw: Mapping[str, Any]) -> Any:
        raise self._error


def told(letter: StoredRecord) -> list[str]:
    headers = dict(letter.headers)
    return [headers[f"headrace-{name}"].decode() for name in ("reason", "error-type", "attempt")]


@in_virtual_time
async def test_a_letter_tells_the_error_and_that_no_attempt_was_made(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.engine(Strict(KeyError("name"))):
        bench.put(0, b"no job")
        bench.enqueue("a")
        await eventually(lambda: bench.committed() == 2, "both letters")
    found = [told(letter) for letter in bench.cluster.topic_records(DEAD_LETTERS)]
    assert sorted(found) == [
        ["arguments_invalid", "KeyError", "0"],
        ["undecodable", "headrace.errors.RecordUndecodable", "0"],
    ]


@in_virtual_time
async def test_a_letter_of_a_job_that_was_begun_tells_its_attempt(tmp_path: Path) -> None:
    bench, worker = Bench(tmp_path), GatedWorker()
    worker.close_gate("a")
    async with bench.engine(worker):
        job = bench.enqueue("a")
        await eventually(lambda: worker.running == ["a"], "the first attempt")
    assert bench.statuses(job) == ["running", "queued"]
    async with bench.engine(Strict(ArgumentsInvalid("name: not wanted"))):
        await eventually(lambda: bench.committed() == 1, "the letter")
    [letter] = bench.cluster.topic_records(DEAD_LETTERS)
    assert told(letter) == ["arguments_invalid", "headrace.errors.ArgumentsInvalid", "1"]
