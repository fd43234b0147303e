"""The pace at which gateways follow the log in tests."""

from __future__ import annotations

import pytest

from headrace.views import follower, job_intake


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "FETCH_SECONDS", 0.01)
    monkeypatch.setattr(job_intake, "LOOK_SECONDS", 0.01)
