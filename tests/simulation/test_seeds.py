"""Engines in a simulation: whatever a seed draws, what headrace promises holds, and a seed does the same each time."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest

from headrace.testing.simulation import FaultKind, Scenario, simulate

SEEDS = 200


def test_what_is_promised_holds_whatever_a_seed_draws() -> None:
    """The command says which seed is broken, and how that one is run again."""
    command = [sys.executable, "-m", "headrace", "simulate", "--seeds", str(SEEDS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr + done.stdout
    assert f"\n{SEEDS} seeds, " in done.stdout
    assert "0 seeds with violations" in done.stdout
    missing = [kind for kind in FaultKind if f"  {kind}\n" not in done.stdout]
    assert missing in ([], [FaultKind.KILLED_IN_TIME])


@pytest.mark.parametrize("seed", [3, 9])
def test_jobs_run_and_things_go_wrong(seed: int) -> None:
    report = simulate(Scenario.of(seed))
    assert report.attempts > 0.7 * report.jobs
    assert report.faults.total() > 10


def test_without_faults_every_attempt_is_the_first_and_the_only_one() -> None:
    only = frozenset({FaultKind.BROKER_CLOCK})
    report = simulate(dataclasses.replace(Scenario.of(1), seconds=300.0, poison=0.0, failing_jobs=0.0, faults=only))
    assert [str(violation) for violation in report.violations] == []
    assert report.attempts <= report.jobs
    assert (report.after_thaw, report.void.total()) == (0, 0)


def test_a_seed_is_replayed_exactly() -> None:
    """Also by a process whose sets have another order."""
    lines = []
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-m", "headrace", "simulate", "--seed", "6"]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
        lines.append(done.stdout.splitlines()[0].rpartition(", ")[2])
    assert len(lines[0]) == 16
    assert lines[0] == lines[1]
    assert simulate(Scenario.of(6)).digest == lines[0]


def test_other_seeds_do_other_things() -> None:
    digests = {simulate(dataclasses.replace(Scenario.of(seed), seconds=60.0, jobs=20)).digest for seed in (1, 2)}
    assert len(digests) == 2
