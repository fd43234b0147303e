"""What a command logs: its own default, unless the user has said what they want."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable

import pytest

from headrace import JobContext
from headrace.cli.common import log_to_stderr
from headrace.log_lines import stderr_handler
from headrace.settings import load_settings
from support.jobs import a_job


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


def printed_of(record: Callable[[], None]) -> list[str]:
    """The lines that a command prints of what is logged meanwhile, the first without its time."""
    root, handler, printed = logging.getLogger(), stderr_handler(), io.StringIO()
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(printed)
    root.addHandler(handler)
    try:
        record()
    finally:
        root.removeHandler(handler)
    return printed.getvalue().split(" ", 2)[2].splitlines()


def test_what_a_worker_says_names_its_job() -> None:
    ctx = JobContext(a_job("job-7", worker_name="send_digest"), attempt=2)
    assert printed_of(lambda: ctx.logger.error("a digest for %s: 100%%", "ada")) == [
        "ERROR   headrace.job: [send_digest job-7 attempt 2] a digest for ada: 100%"
    ]
    assert printed_of(lambda: logging.getLogger("headrace.engine").error("as it is")) == ["ERROR   headrace.engine: as it is"]


def test_its_tracebacks_stay_whole() -> None:
    def fail() -> None:
        try:
            raise ValueError("boom")
        except ValueError:
            JobContext(a_job("job-7")).logger.exception("it failed")

    first, *_, last = printed_of(fail)
    assert (first, last) == ("ERROR   headrace.job: [send_digest job-7 attempt 1] it failed", "ValueError: boom")


def test_a_commands_default_holds_while_nothing_is_set() -> None:
    assert level("WARNING") == "WARNING"


def test_without_a_default_the_settings_hold() -> None:
    assert level() == "INFO"


@pytest.mark.parametrize("wanted", ["DEBUG", "INFO", "ERROR"])
def test_what_the_user_sets_wins(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    monkeypatch.setenv("HEADRACE_LOG_LEVEL", wanted)
    assert level("WARNING") == wanted
