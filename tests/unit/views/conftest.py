"""The pace at which views follow the log in tests, and where they are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.views import follower as follower_module
from headrace.views import job_intake
from support import job_views


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(follower_module, "FETCH_SECONDS", 0.01)
    monkeypatch.setattr(job_intake, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(job_intake, "LOOK_SECONDS", 0.01)


@pytest.fixture(params=["here", "by a process"])
def both_keepers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever keeps a view, it shows the same."""
    monkeypatch.setattr(job_views, "by_process", request.param == "by a process")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.sqlite"
