"""What of an engine is other than usual in a simulation: its settings, and times that no setting changes."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from headrace.engine import commits, control, ended_keys, group, holdings, intake, janitor, losses, takeover
from headrace.engine.janitor import JanitorTimes
from headrace.settings import Settings, load_settings
from headrace.testing.simulation.scenario import Scenario
from headrace.views import follower

NAMESPACE = "simulation"
# What an engine has of times that no setting changes, in seconds: they are as much shorter as its lease is.
_SHORTER: tuple[tuple[ModuleType, str], ...] = (
    (commits, "_COMMIT_SECONDS"),
    (commits, "_PROBE_SECONDS"),
    (commits, "_UNANSWERED_SECONDS"),
    (control, "_READ_SECONDS"),
    (ended_keys, "_SILENCE_SECONDS"),
    (follower, "LONGEST_PAUSE_SECONDS"),
    (group, "_COMMIT_SECONDS"),
    (holdings, "_GIVE_BACK_SECONDS"),
    (holdings, "_RELEASE_SECONDS"),
    (holdings, "_RETRY_SECONDS"),
    (janitor, "_APPEND_SECONDS"),
    (janitor, "_POLL_SECONDS"),
    (janitor, "_RETRY_SECONDS"),
    (losses, "_FORGOTTEN_SECONDS"),
    (losses, "_LONGEST_PAUSE_SECONDS"),
    (takeover, "_APPEND_SECONDS"),
    (takeover, "_LOOK_SECONDS"),
    (takeover, "_RETRY_SECONDS"),
)


def _otherwise(pace: float) -> list[tuple[ModuleType, str, Any]]:
    """What is other than usual in the modules of an engine, for a run.

    A fetch ends as soon as there is something, and how long it waits for that is all but half of a run's cost.
    """
    times = JanitorTimes(start=5.0 * pace, round=12.0 * pace, settled=20.0 * pace, idle=4.0 * pace, retention=40.0 * pace)
    return [
        (janitor, "TIMES", times),
        (follower, "FETCH_SECONDS", 30.0 * pace),
        (intake, "_POLL_SECONDS", 6.0 * pace),
        (intake, "_POLL_SECONDS_WHILE_FULL", 0.5 * pace),
        (takeover, "_FETCH_SECONDS", 0.5 * pace),
        *((module, name, getattr(module, name) * pace) for module, name in _SHORTER),
    ]


@functools.cache
def _settings() -> Settings:
    """Read once, and not at import: who only imports a simulation is not to hear of a setting that is wrong."""
    return load_settings(namespace=NAMESPACE, data_directory=Path(".headrace"))


def settings_of(scenario: Scenario) -> Settings:
    """The settings of a run's engines and clients."""
    settings, pace = _settings(), scenario.pace
    engine = {
        "partitions": scenario.partitions,
        "concurrency": scenario.concurrency,
        "buffer_per_partition": 8,
        "grace_seconds": 5.0 * pace,
        "presence_interval_seconds": 300.0,
        "commit_interval_seconds": 2.0 * pace,
        "lease_seconds": scenario.lease,
        "lease_by_log_time": scenario.by_log_time,
        # Longer than a run, clocks that jump an hour ahead included: whatever is asked for again is the same job.
        "idempotency_window_seconds": 4 * 3_600.0,
        "job_retention_seconds": scenario.retention,
    }
    return settings.model_copy(update={"engine": settings.engine.model_copy(update=engine)})


@contextmanager
def quietly(pace: float) -> Iterator[None]:
    """Engines among so many faults would tell of little else; and half the time would go into looking for what is not there."""
    logger = logging.getLogger("headrace")
    otherwise = _otherwise(pace)
    level, usual = logger.level, [getattr(module, name) for module, name, _ in otherwise]
    logger.setLevel(logging.CRITICAL + 1)
    for module, name, value in otherwise:
        setattr(module, name, value)
    try:
        yield
    finally:
        logger.setLevel(level)
        for (module, name, _), value in zip(otherwise, usual, strict=True):
            setattr(module, name, value)
