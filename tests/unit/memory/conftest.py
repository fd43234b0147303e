"""The pace at which stores follow the log in tests."""

from __future__ import annotations

import pytest

from headrace.memory import follower


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fetch that finds nothing waits for the whole of this time; a cluster in memory has nothing on its way."""
    monkeypatch.setattr(follower, "_FETCH_SECONDS", 0.01)
