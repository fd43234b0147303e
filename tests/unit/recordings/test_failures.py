"""What a question to the outside raised: a worker's `except` takes the same branch when a replay raises it again."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.error
from typing import Any

import orjson
import pytest

from headrace.core.retry import qualified_name
from headrace.errors import BrokerUnreachable
from headrace.recordings.failures import decode_failure, encode_failure, is_recorded
from headrace.replay_errors import RecordedError


class RateLimited(Exception):
    """Such as clients of services have: it takes what nobody can know, and tells more than its text."""

    def __init__(self, response: dict[str, Any], *, wait: float) -> None:
        super().__init__(response)
        self.response = response
        self.wait = wait

    def __str__(self) -> str:
        return f"try again in {self.wait:g} s"


class Inside:
    class Refused(OSError):
        """Of another layout in memory than most."""


class NeverAgain(Exception):
    def __init_subclass__(cls) -> None:
        raise TypeError("final")


class NoText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


RAISED = [
    TimeoutError("took too long"),
    KeyError("customer"),
    ConnectionRefusedError(111, "Connection refused"),
    ValueError(),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    asyncio.QueueFull(),
    json.JSONDecodeError("Expecting value", "{", 1),
    urllib.error.URLError("no route"),
    RateLimited({"retry": 3}, wait=3),
    Inside.Refused(5, "refused"),
]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_it_is_of_the_same_class_with_the_same_text(error: Exception) -> None:
    made = decode_failure(encode_failure(error))
    assert isinstance(made, type(error))
    assert (qualified_name(type(made)), str(made)) == (qualified_name(type(error)), str(error))


def test_one_of_pythons_own_has_its_arguments() -> None:
    made = decode_failure(encode_failure(ConnectionRefusedError(111, "Connection refused")))
    assert isinstance(made, ConnectionRefusedError)
    assert (made.errno, made.strerror) == (111, "Connection refused")


def test_what_was_not_recorded_of_it_is_missing() -> None:
    made = decode_failure(encode_failure(RateLimited({}, wait=1)))
    with pytest.raises(AttributeError):
        made.wait  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize(
    "name", ["no_module.of_this.Name", "headrace.errors.NoSuchError", "os.path.join", "NoSuchError", "int", ""]
)
def test_a_class_that_is_not_loaded_has_one_that_stands_for_it(name: str) -> None:
    made = decode_failure(orjson.dumps({"type": name, "message": "no"}))
    assert isinstance(made, RecordedError)
    assert (made.type, made.message, str(made)) == (name, "no", "no")
    assert not name or qualified_name(type(made)) == name


def test_no_module_is_imported_by_a_name_in_the_log() -> None:
    assert "antigravity" not in sys.modules
    decode_failure(orjson.dumps({"type": "antigravity.Error", "message": "no"}))
    assert "antigravity" not in sys.modules


def test_a_class_that_lets_nobody_inherit_has_one_that_stands_for_it() -> None:
    made = decode_failure(encode_failure(NeverAgain("no")))
    assert isinstance(made, RecordedError)
    assert str(made) == "no"


@pytest.mark.parametrize("value", [b'"[redacted]"', b"[]", b"{}", b'{"type": 1, "message": null, "args": 3}'])
def test_whatever_stands_in_the_log_something_is_raised(value: bytes) -> None:
    assert isinstance(decode_failure(value), RecordedError)


def test_it_is_never_too_large_and_never_fails() -> None:
    assert len(encode_failure(ValueError("é" * 1_000_000))) < 10_000
    assert orjson.loads(encode_failure(ValueError(b"no JSON")))["message"] == "b'no JSON'"
    assert orjson.loads(encode_failure(NoText()))["message"] == ""
    assert orjson.loads(encode_failure(ValueError("\ud800")))["message"] == "?"


def test_an_interruption_is_no_answer() -> None:
    assert is_recorded(TimeoutError())
    assert not any(is_recorded(each) for each in (asyncio.CancelledError(), KeyboardInterrupt(), BrokerUnreachable("away")))
