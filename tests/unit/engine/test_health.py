"""What `/healthz` makes of how an engine is doing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace.engine.health import AppendWatch, Health, WorkerHealth

IDLE = WorkerHealth(assigned=8, ready=8, running=0, waiting=0, since_poll=0.4, since_commit=4.9, since_append=0.0)


def test_an_engine_without_work_and_one_without_partitions_are_well() -> None:
    spare = replace(IDLE, assigned=0, ready=0, since_commit=5_000.0)
    assert Health(0.0, {"idle": IDLE, "spare": spare}).answer(0.1, 0, 0.0)[0]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"since_poll": 31.0}, "w: no poll for 31 s"),
        ({"since_commit": 91.0}, "w: no commit answered for 91 s"),
        ({"since_append": 45.0}, "w: nothing acknowledged for 45 s though something waits for it"),
    ],
)
def test_each_trouble_is_told(change: dict[str, float], told: str) -> None:
    well, answer = Health(0.0, {"w": replace(IDLE, **change), "other": IDLE}).answer(0.1, 0, 0.0)  # type: ignore[arg-type]
    assert (well, answer["status"], answer["troubles"]) == (False, "stuck", [told])


def test_a_blocked_loop_is_told_although_it_looks_at_nothing() -> None:
    well, answer = Health(0.0, {"w": IDLE}).answer(12.0, 3, 4.0)
    assert (well, answer["troubles"]) == (False, ["the event loop has been blocked for 12 s"])
    assert answer["eventLoop"] == {"silentSeconds": 12.0, "blocks": 3, "longestBlockSeconds": 4.0}
    assert answer["workers"]["w"]["secondsSincePoll"] == 0.4


def test_only_what_is_under_way_is_waited_for() -> None:
    watch = AppendWatch()
    assert watch.seconds(0.0, 7.0, under_way=False) == 0.0
    assert watch.seconds(100.0, 7.0, under_way=True) == 0.0, "it has just begun"
    assert watch.seconds(120.0, 7.0, under_way=True) == 20.0
    assert watch.seconds(130.0, 8.0, under_way=True) == 0.0, "something was acknowledged"
    assert watch.seconds(150.0, 8.0, under_way=False) == 0.0
