"""What came of an attempt, in the form in which it is written down."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import orjson

from headrace.codec import encode_any
from headrace.core.retry import attribute_of, qualified_name
from headrace.core.snapshots import TRACEBACK_LIMIT_BYTES, shorten
from headrace.errors import JobFailed, ResultInvalid, ResultTooLarge
from headrace.models import PAYLOAD_LIMIT_BYTES

_MESSAGE_LIMIT_BYTES = 4 * 1024
_TYPE_LIMIT_BYTES = 1024
_OWN_CODE = str(Path(__file__).resolve().parent.parent)


def encode_result(result: Any) -> orjson.Fragment | None:
    """The JSON of what a worker returned.

    Raises:
        ResultInvalid: it is no JSON.
        ResultTooLarge: it is over the limit.
    """
    if result is None:
        return None
    try:
        encoded = encode_any(result)
    except Exception as error:  # it may be of a class of the user's own, which can raise anything
        raise ResultInvalid(f"What the worker returned is no JSON: {text_of(error)}.") from None
    if len(encoded) > PAYLOAD_LIMIT_BYTES:
        raise ResultTooLarge(
            f"What the worker returned takes {len(encoded)} bytes as JSON, and the limit is {PAYLOAD_LIMIT_BYTES}: "
            "store it elsewhere, and return where."
        )
    return orjson.Fragment(encoded)


TOLD_ATTRIBUTE: Final = "__headrace_told__"
"""Of an exception that was raised in another process: how it was described there."""


def describe_error(error: BaseException) -> dict[str, str]:
    """Type, message and traceback of an exception; the frames of headrace itself are left out of the traceback."""
    if (told := attribute_of(error, TOLD_ATTRIBUTE)) is not None:
        return dict(told)
    name, message = shortened(qualified_name(type(error)), _TYPE_LIMIT_BYTES), shortened(text_of(error), _MESSAGE_LIMIT_BYTES)
    frames = without_own_frames(error)
    try:
        lines = traceback.format_exception(type(error), error, frames)
    except Exception:  # it asks for notes, for causes and more, which not every exception bears
        lines = ["Traceback (most recent call last):\n", *traceback.format_tb(frames), f"{name}: {message}\n"]
    return {"type": name, "message": message, "traceback": shortened("".join(lines))}


def without_own_frames(error: BaseException) -> TracebackType | None:
    """Where an exception was raised, from the first frame on that is not headrace's own."""
    frames = error.__traceback__
    while frames is not None and frames.tb_next is not None and is_own_code(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return frames


def resisting(error: BaseException | None, resistance: BaseException) -> JobFailed:
    """What stands for an exception of which nothing can be told.

    Args:
        resistance: what was raised when it was looked at.
    """
    names = [type.__repr__(type(each)) for each in (error, resistance)]  # as no class can have it otherwise
    return JobFailed(f"The worker raised {names[0]}, and to look at that raised {names[1]}: {text_of(resistance)}")


def text_of(error: BaseException) -> str:
    """The text of an exception, whatever becomes of making it."""
    try:
        return str.__str__(str(error))  # of Python's own class, whatever it was
    except BaseException:  # an exception of the user's own, whose text cannot be made
        return f"({type.__repr__(type(error))} without a text)"


def is_own_code(filename: str) -> bool:
    """Whether a file is one of headrace itself, and not of a worker that comes with it."""
    return filename.startswith(_OWN_CODE) and not filename.startswith(str(Path(_OWN_CODE) / "workers"))


def shortened(text: str, limit: int = TRACEBACK_LIMIT_BYTES) -> str:
    """`text` in at most `limit` bytes of UTF-8, whatever stands in it."""
    return shorten(text.encode(errors="replace").decode(), limit)
