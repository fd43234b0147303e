"""An engine that is broken on purpose is found out by the simulation, which so stands for something."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future

import pytest

from simulation.breaks import BREAKS
from simulation.search import SEEDS, Found, find, known_seeds, pool

_LONGEST_SECONDS = 1_200.0

Searches = Mapping[str, "Future[Found]"]


@pytest.fixture(scope="module")
def searches() -> Iterator[Searches]:
    """All breaks, as many at a time as there are processors; each begins with the seed that found it last."""
    with pool(os.cpu_count() or 1) as executor:
        yield {each.name: executor.submit(find, each.name) for each in BREAKS}
        executor.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", [each.name for each in BREAKS])
def test_a_broken_engine_is_found_out(name: str, searches: Searches) -> None:
    found = searches[name].result(_LONGEST_SECONDS)
    assert found.seed is not None, f"{SEEDS} seeds do not find it"
    assert found.seed < SEEDS


def test_there_are_breaks_enough_and_each_has_its_seed() -> None:
    names = [each.name for each in BREAKS]
    assert len(names) == len(set(names)) >= 30
    assert known_seeds().keys() <= set(names)


def test_each_rule_of_the_protocol_that_engines_keep_is_broken() -> None:
    rules = {each.rule for each in BREAKS}
    assert rules >= {"C1", "C2", "C3", "C4", "F1", "F2", "F3", "H1", "H2", "H4", "H5", "H6", "O1", "R1", "K1", "K2", "K3"}
