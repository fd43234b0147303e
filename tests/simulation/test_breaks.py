"""An engine that is broken on purpose is found out by the simulation, which so stands for something."""

from __future__ import annotations

import itertools

import pytest

from headrace.testing.simulation import Scenario, simulate
from simulation.breaks import BREAKS, Break

SEEDS = 200


def _name(broken: Break) -> str:
    return f"{broken.rule}-{broken.apply.__name__}"


def _finds(broken: Break, patch: pytest.MonkeyPatch) -> int | None:
    """The first seed that finds it, beginning with the one that did so last; seeds change with the engine."""
    broken.apply(patch)
    for seed in itertools.chain([broken.found_by], range(SEEDS)):
        if simulate(Scenario.of(seed)).violations:
            return seed
    return None


@pytest.mark.parametrize(
    "broken", [pytest.param(each, marks=[] if each.quick else [pytest.mark.long], id=_name(each)) for each in BREAKS]
)
def test_a_break_is_found(broken: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _finds(broken, monkeypatch) is not None
