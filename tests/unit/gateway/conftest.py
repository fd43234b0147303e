"""A log in memory for gateways in tests, and the pace at which they follow it."""

from __future__ import annotations

import pytest

from headrace.views import follower, job_intake
from support.written_jobs import Engines, WrittenLog


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "FETCH_SECONDS", 0.01)
    monkeypatch.setattr(job_intake, "LOOK_SECONDS", 0.01)


@pytest.fixture
def log() -> WrittenLog:
    return WrittenLog()


@pytest.fixture
def engines(log: WrittenLog) -> Engines:
    made = Engines(log)
    made.define()
    return made
