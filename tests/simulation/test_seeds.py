"""Engines in a simulation: whatever a seed draws, what headrace promises holds, and a seed does the same each time."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from headrace.cli.main import application
from headrace.testing.simulation import FaultKind, Scenario, simulate
from simulation.breaks import BREAKS
from simulation.search import SEEDS, known_seeds


def test_the_command_names_the_seed_that_is_broken_and_how_it_is_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    [broken] = [each for each in BREAKS if each.name == "forgets_the_order_of_keys"]
    seed = known_seeds()[broken.name]
    several = ["simulate", "--processes", "1", "--first", str(seed), "--seeds", "1"]
    well = CliRunner().invoke(application, several)
    assert (well.exit_code, "run again" in well.stdout) == (0, False)
    broken.apply(monkeypatch)
    done = CliRunner().invoke(application, several)
    assert done.exit_code == 1
    assert f"\nbroken, and run again by:\n  headrace simulate --seed {seed}\n" in done.stdout
    assert "order by key: " in done.stderr
    again = CliRunner().invoke(application, ["simulate", "--seed", str(seed)])
    assert again.exit_code == 1
    # All that is wrong, where a run of many shows the beginning.
    assert again.stderr.startswith(done.stderr) and again.stderr.count("\n") >= done.stderr.count("\n")


def test_what_is_promised_holds_whatever_a_seed_draws() -> None:
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
