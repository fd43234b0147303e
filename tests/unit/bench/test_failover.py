"""What `headrace bench failover` measures unless told otherwise, and what it says of it."""

from __future__ import annotations

from typing import Any

import typer

from headrace.bench.failover import verdicts
from headrace.cli.bench import application

RESTART = {"restart_seconds_p99": 1.614, "restart_seconds_max": 9.0, "restart_passed": True}
KILLED = {"killed_seconds_p99": 7.0, "killed_seconds_max": 8.01, "killed_passed": False}
MACHINE = {"machine_seconds_p99": 40.0, "machine_seconds_max": 47.4, "machine_passed": True}


def test_each_hand_over_is_told_with_its_aim() -> None:
    assert verdicts({**RESTART, **KILLED, **MACHINE}) == [
        "an engine ended in order: jobs went on after 1.61 s (p99), the aim is 5 s: passed",
        "an engine was killed: jobs went on after 8.01 s (max), the aim is 8 s: missed",
        "a machine was lost, supervisor and engine: jobs went on after 47.40 s (max), the aim is 90 s: passed",
    ]


def test_what_was_not_measured_has_not_passed() -> None:
    figures: dict[str, Any] = {"restart_jobs": 0, "restart_passed": False, **KILLED}
    first, _, last = verdicts(figures)
    assert first == "an engine ended in order: missed, as no job waited for it"
    assert last == "a machine was lost, supervisor and engine: not measured"


def test_the_loss_of_a_machine_is_measured_unless_it_is_left_out() -> None:
    command = typer.main.get_group(application).commands["failover"]
    given = {arguments: command.make_context("failover", list(arguments)).params["machine"] for arguments in COMMANDS}
    assert given == {(): True, ("--machine",): True, ("--no-machine",): False}


COMMANDS: list[tuple[str, ...]] = [(), ("--machine",), ("--no-machine",)]
