"""Reads the context of a call from the request's headers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pydantic import ValidationError

from headrace import CallContext, check_plain
from headrace_gateway.tools import ToolRefused

CONTEXT_HEADERS: Final = {
    "Headrace-User-Id": "userId",
    "Headrace-Conversation-Id": "conversationId",
    "Headrace-Source": "source",
}
_FIELDS = {header.lower().encode(): (header, field) for header, field in CONTEXT_HEADERS.items()}

_ALIKE: Final = (b"headrace-", b"headrace_", b"x-headrace-", b"x-headrace_")
"""What only a header of headrace begins with; others, as proxies add them, are nobody's concern."""
_LONGEST_SHOWN: Final = 100


def context_from_headers(headers: Iterable[tuple[bytes, bytes]]) -> CallContext:
    """The context that the `Headrace-*` headers give. Their values are UTF-8.

    Raises:
        ToolRefused: one is given twice, or is empty, longer than 200 characters, not UTF-8 or has control characters; or one is
            named like these, and is none of them: a call that was to be a user's must not be nobody's.
    """
    given: dict[str, str] = {}
    for name, raw in headers:
        if (known := _FIELDS.get(name)) is None:  # in a scope the names of headers are in lower case
            if name.startswith(_ALIKE):
                raise _unknown(name)
            continue
        header, field = known
        if field in given:
            raise _invalid(header, "it is given more than once; give it once")
        given[field] = _text(header, raw)
    if not given:
        return CallContext()
    try:
        return CallContext.model_validate(given)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        header = next(header for header, field in CONTEXT_HEADERS.items() if field == problem["loc"][0])
        raise _invalid(header, f"{problem['msg'][0].lower()}{problem['msg'][1:]}; or leave the header out") from None


def _text(header: str, raw: bytes) -> str:
    try:
        value = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _invalid(header, "it is not UTF-8") from None
    try:
        return check_plain(value)
    except ValueError as error:
        raise _invalid(header, str(error)) from None


def _unknown(name: bytes) -> ToolRefused:
    given = name[:_LONGEST_SHOWN].decode("latin-1")
    return ToolRefused("context_invalid", f"There is no header {given}: the context is given by {', '.join(CONTEXT_HEADERS)}.")


def _invalid(header: str, problem: str) -> ToolRefused:
    return ToolRefused("context_invalid", f"The header {header} is wrong: {problem}.")
