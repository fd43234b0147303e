"""An engine that is broken on purpose is found out by the simulation, which so stands for something."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import pytest

from headrace.testing.simulation.seeds import process_pool
from simulation.breaks import BREAKS
from simulation.search import SEEDS, Found, find, known_seeds

_LONGEST_SECONDS = 3_600.0
_KNOWN = known_seeds()
_RULES = [
    *("C1", "C2", "C3", "C4"),
    *("F1", "F2", "F3"),
    *("H1", "H2", "H3", "H4", "H5", "H6"),
    *("O1", "R1", "R2"),
    *("K1", "K2", "K3", "E1", "E2"),
    *("J1", "J2", "J3", "X1"),
]
_DOCUMENTATION = Path(__file__).parents[2] / "docs" / "reliability.md"
_NAMES = [each.name for each in BREAKS]


@pytest.fixture(scope="module")
def executor() -> Iterator[ProcessPoolExecutor]:
    with process_pool(os.cpu_count() or 1) as processes:
        yield processes
        processes.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def searches(executor: ProcessPoolExecutor) -> Mapping[str, Future[Found]]:
    """All breaks of which the seed is known, as many at a time as there are processors; each begins with that seed."""
    return {name: executor.submit(find, name) for name in _NAMES if name in _KNOWN}


def _to_be_found() -> Iterator[object]:
    """Names of breaks; those of which no seed is known take long."""
    for each in BREAKS:
        if each.name in _KNOWN:
            yield each.name
        elif not each.covered:
            yield pytest.param(each.name, marks=pytest.mark.long)


@pytest.mark.parametrize("name", list(_to_be_found()))
def test_a_broken_engine_is_found_out(name: str, searches: Mapping[str, Future[Found]], executor: ProcessPoolExecutor) -> None:
    found = (searches.get(name) or executor.submit(find, name)).result(_LONGEST_SECONDS)
    assert found.seed is not None, f"{SEEDS} seeds do not find it"
    assert found.seed < SEEDS


def test_there_are_breaks_enough_and_seeds_of_no_others() -> None:
    assert len(_NAMES) == len(set(_NAMES)) >= 30
    assert set(_NAMES) >= _KNOWN.keys()


def test_of_each_rule_of_the_protocol_a_break_is_found_out_by_a_seed_that_is_known() -> None:
    known = {each.rule for each in BREAKS if each.name in _KNOWN}
    assert [rule for rule in _RULES if rule not in known] == []


def test_the_documentation_says_what_covers_the_breaks_that_no_seed_finds() -> None:
    covered = [each.name for each in BREAKS if each.covered]
    assert not _KNOWN.keys() & set(covered)
    assert [name for name in covered if f"| `{name}` |" not in _DOCUMENTATION.read_text(encoding="utf-8")] == []
