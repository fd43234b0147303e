"""`headrace state --json` has all jobs, the newest first, however many there are."""

from __future__ import annotations

import json
import tracemalloc
from contextlib import closing

import pytest

from headrace.cli.state import _print_json, _Spool
from headrace.replay.inspection.state import JobAt
from support.recorded import recorded_job

WIDE = "x" * 1_000


def job_at(number: int, at: int) -> JobAt:
    return JobAt(recorded_job(number, at=at, result=f"{number} {WIDE}"), "log")


def test_all_are_listed_the_newest_first(capsys: pytest.CaptureFixture[str]) -> None:
    with closing(_Spool()) as spool:
        for batch in ([(1, 5), (2, 9)], [(3, 9)], [(4, 1)]):
            spool.add([job_at(*each) for each in batch])
        _print_json(spool.newest_first())
    told = json.loads(capsys.readouterr().out)
    assert [each["job"]["args"]["number"] for each in told] == [3, 2, 1, 4]
    assert told[0] == json.loads(json.dumps(job_at(3, 9).to_wire()))


def test_none_is_an_empty_list(capsys: pytest.CaptureFixture[str]) -> None:
    with closing(_Spool()) as spool:
        _print_json(spool.newest_first())
    assert json.loads(capsys.readouterr().out) == []


def test_many_take_no_more_than_some_memory() -> None:
    with closing(_Spool()) as spool:
        tracemalloc.start()
        try:
            for number in range(200):
                spool.add([job_at(100 * number + each, number) for each in range(100)])
            total = sum(len(told) for told in spool.newest_first())
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert total > 20_000_000
    assert peak < 3_000_000
