"""What reads the log in memory that `tests/unit/conftest.py` makes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from headrace.replay.recorded.log_history import LogHistory
from support.written_jobs import WrittenLog


@pytest.fixture
async def history(log: WrittenLog) -> AsyncIterator[LogHistory]:
    made = LogHistory(log, log.topics)
    yield made
    await made.stop()
