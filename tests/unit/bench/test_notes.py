"""What the jobs of `headrace bench failover` wrote down, as the bench reads it."""

from __future__ import annotations

from pathlib import Path

from headrace.bench.engine_processes import Notes


def test_a_job_whose_first_attempt_never_began_has_begun_with_the_next(tmp_path: Path) -> None:
    """An engine that is told to end may interrupt an attempt that is written as running, and whose worker has done nothing."""
    file = tmp_path / "notes.txt"
    file.write_text("begin one 2 10 1 5.0\nbegin two 1 10 1 6.0\n")
    notes = Notes(file)
    first = notes.first_begin("one")
    assert first is not None and (first.attempt, first.at) == (2, 5.0)
    with file.open("a") as more:
        more.write("stop two 1 10 1 7.0\nbegin two 2 11 1 8.0\n")
    second = notes.first_begin("two")
    assert second is not None and (second.attempt, second.at) == (1, 6.0)
    assert notes.first_begin("three") is None
