"""A log in memory with what clients and engines write, for whatever reads it: views, gateways, histories."""

from __future__ import annotations

import pytest

from support.written_jobs import Engines, WrittenLog


@pytest.fixture
def log() -> WrittenLog:
    return WrittenLog()


@pytest.fixture
def engines(log: WrittenLog) -> Engines:
    made = Engines(log)
    made.define()
    return made
