"""The faults that a seed draws: always enough of each kind."""

from __future__ import annotations

from collections import Counter

import pytest

from chaos.plan import plan
from chaos.verdict import FREEZES, KINDS, LONG_FREEZE_SECONDS, Minimums


@pytest.mark.parametrize("minutes", [0.5, 1, 2, 5, 10])
def test_a_plan_has_more_than_is_needed_and_fits_into_its_minutes(minutes: float) -> None:
    wanted = Minimums.of(minutes)
    for seed in range(50):
        steps = plan(seed, minutes)
        kinds = Counter(step.kind for step in steps)
        assert set(kinds) <= set(KINDS)
        assert len(kinds) >= wanted.kinds
        assert len(steps) >= wanted.faults
        assert sum(step.kind in FREEZES and step.seconds > LONG_FREEZE_SECONDS for step in steps) >= wanted.freezes
        times = [step.at for step in steps]
        assert times == sorted(times)
        assert times[0] > 0
        assert times[-1] < minutes * 60


def test_a_seed_draws_the_same_plan_again() -> None:
    assert plan(7, 5) == plan(7, 5)
    assert plan(7, 5) != plan(8, 5)
