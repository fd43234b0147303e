"""What a command logs: its own default, unless the user has said what they want."""

from __future__ import annotations

import logging

import pytest

from headrace.cli.common import log_to_stderr
from headrace.settings import load_settings


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADRACE_LOG_LEVEL", raising=False)


LIBRARIES = ("aiokafka", "uvicorn.error", "mcp.server")


def level(default: str | None = None) -> str:
    """The level that the root logger gets in a process that has not logged yet."""
    root, libraries = logging.getLogger(), [logging.getLogger(name) for name in LIBRARIES]
    before = root.level, root.handlers[:], [each.level for each in libraries]
    root.handlers.clear()
    try:
        log_to_stderr(load_settings(), default=default)
        for quiet in ("aiokafka.conn", "uvicorn.error", "mcp.server.streamable_http_manager"):
            assert not logging.getLogger(quiet).isEnabledFor(logging.INFO), quiet
        return logging.getLevelName(root.level)
    finally:
        root.setLevel(before[0])
        root.handlers[:] = before[1]
        for each, was in zip(libraries, before[2], strict=True):
            each.setLevel(was)


def test_a_commands_default_holds_while_nothing_is_set() -> None:
    assert level("WARNING") == "WARNING"


def test_without_a_default_the_settings_hold() -> None:
    assert level() == "INFO"


@pytest.mark.parametrize("wanted", ["DEBUG", "INFO", "ERROR"])
def test_what_the_user_sets_wins(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    monkeypatch.setenv("HEADRACE_LOG_LEVEL", wanted)
    assert level("WARNING") == wanted
