"""A log in memory with what clients and engines write, for histories to read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.replay.log_history import LogHistory
from support.written_jobs import Engines, WrittenLog


@pytest.fixture
def log() -> WrittenLog:
    return WrittenLog()


@pytest.fixture
def engines(log: WrittenLog) -> Engines:
    made = Engines(log)
    made.define()
    return made


@pytest.fixture
def history(log: WrittenLog) -> Iterator[LogHistory]:
    made = LogHistory(log, log.topics)
    yield made
    made.close()
