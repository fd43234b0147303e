"""Tool calls and their answers as the records that they come in and go out by."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from headrace.codec import decode, encode
from headrace.errors import RecordUndecodable
from headrace.ports import Header, Record
from headrace.tool_models import ToolCall, ToolCallRecord, ToolError, ToolRefusal, ToolResultRecord, ToolSuccess

_logger = logging.getLogger(__name__)

CREDENTIAL_HEADER: Final = "authorization"
TENANT_HEADER: Final = "headrace-tenant"
USER_HEADER: Final = "headrace-user"
FOR_NOW_HEADER: Final = "headrace-refused-for-now"
"""Of a refusal after which the same call, sent again, is a new one."""
LARGEST_HEADERS_BYTES: Final = 65_536
"""More than a credential and whatever is of use beside it take."""
MAY_BE_DONE_HEADER: Final = "headrace-may-be-done"
"""Of a refusal of a call that may be done all the same, and is not done again by the same id."""
# It must fit into its topic: an answer that does not would be written again and again, and hold up the partition for ever.
_LARGEST_ANSWER_BYTES = 1_900_000
_BEARER = "bearer "


class CallOwner(NamedTuple):
    """Whose a call is. Calls of one id are one where their owners are equal, and have nothing to do with each other else.

    Attributes:
        user_id: the only user for whom the caller may act; None for one who may act for all of the tenant.
    """

    tenant: str
    user_id: str | None = None


class CallKey(NamedTuple):
    """What tells a call from others."""

    call_id: str
    owner: CallOwner


@dataclass(frozen=True, slots=True)
class ReceivedCall:
    """A call, and what its record says of the caller.

    Attributes:
        call: its `id` is the call's.
        credential: what the header `authorization` has after `Bearer`; None where there is none.
        digest: SHA-256 of the record's value, as hexadecimal digits.
    """

    call: ToolCall
    credential: str | None
    digest: str

    @property
    def call_id(self) -> str:
        """The call's id: every call that comes as a record has one."""
        assert self.call.id is not None
        return self.call.id


@dataclass(frozen=True, slots=True)
class OwnedCall:
    """A call of which it is known whose it is.

    Attributes:
        do: does it. It raises nothing but the cancellation of its task. Where something may be done that would be done twice
            if the call were, a refusal is a `LastingRefusal`; and when it is cut off then, it returns one in place of raising.
        turn: returns when the caller may do so much; then it is done at once. None where nobody has to wait.
        turn_away: the refusal for one that cannot wait; None where each can.
        caller: whose calls are counted together, and wait one behind another; the owner's are when left out.
        at_once: whether the caller may do so many calls now. Then no call of theirs is turned away.
    """

    owner: CallOwner
    do: Callable[[], Awaitable[ToolSuccess | ToolRefusal]]
    turn: Callable[[], Awaitable[None]] | None = None
    turn_away: Callable[[], ToolRefusal] | None = None
    caller: Hashable = None
    at_once: Callable[[int], bool] | None = None


def received(record: Record) -> ReceivedCall:
    """The call in a record. Raises: RecordUndecodable."""
    if (size := _headers_size(record)) > LARGEST_HEADERS_BYTES:
        raise RecordUndecodable(f"the record's headers take {size:,} bytes, and may take {LARGEST_HEADERS_BYTES:,}")
    asked = decode(ToolCallRecord, record.value)
    call = ToolCall(id=asked.call_id, name=asked.name, arguments=asked.arguments, context=asked.context)
    return ReceivedCall(call, _credential(record), hashlib.sha256(record.value or b"").hexdigest())


def size_of(record: Record) -> int:
    """How many bytes its writer gave a record."""
    return len(record.key or b"") + len(record.value or b"") + _headers_size(record)


def _headers_size(record: Record) -> int:
    return sum(len(name.encode(errors="replace")) + len(value or b"") for name, value in record.headers)


def _credential(record: Record) -> str | None:
    for name, value in record.headers:
        if name.lower() == CREDENTIAL_HEADER:
            text = (value or b"").decode(errors="replace")
            return text[len(_BEARER) :].strip() if text.lower().startswith(_BEARER) else None
    return None


def readable_id(record: Record) -> str | None:
    """The id of what was to be a call: its key."""
    try:
        call_id = (record.key or b"").decode()
    except UnicodeDecodeError:
        return None
    return call_id if 0 < len(call_id) <= 200 else None


def owner_headers(owner: CallOwner) -> list[Header]:
    """The headers of an answer that tell to whom it is given."""
    headers = [(TENANT_HEADER, owner.tenant.encode())]
    return headers if owner.user_id is None else [*headers, (USER_HEADER, owner.user_id.encode())]


def is_for_now(headers: Iterable[Header]) -> bool:
    """Whether an answer uses up no id."""
    return any(name == FOR_NOW_HEADER for name, _ in headers)


def owner_of(headers: Iterable[Header]) -> CallOwner | None:
    """To whom an answer was given; None where it was not known whose the call was."""
    found = dict(headers)
    try:
        user = found.get(USER_HEADER)
        return CallOwner(found[TENANT_HEADER].decode(), None if user is None else user.decode())
    except (KeyError, AttributeError, UnicodeDecodeError):  # AttributeError: a header without a value
        return None


def encoded(call_id: str, answer: ToolSuccess | ToolRefusal) -> bytes:
    """The answer as it is written; where it cannot be, a refusal that says so."""
    if isinstance(answer, ToolRefusal):
        return _encoded_refusal(call_id, answer.error)
    try:
        value = encode(ToolResultRecord(call_id=call_id, ok=True, data=answer.data))
    except (TypeError, ValueError) as error:
        _logger.error("the answer to a tool call is no JSON, and a refusal is given instead: %s", error)
        message = "The tool gave an answer that is no JSON. What was asked for may have been done."
        return encode(ToolResultRecord(call_id=call_id, ok=False, error=ToolError(code="internal_error", message=message)))
    if len(value) <= _LARGEST_ANSWER_BYTES:
        return value
    message = (
        f"The answer takes {len(value):,} bytes, and a record at most {_LARGEST_ANSWER_BYTES:,}: ask for less, or over HTTP. "
        "What was asked for was done."
    )
    return encode(ToolResultRecord(call_id=call_id, ok=False, error=ToolError(code="answer_too_large", message=message)))


def _encoded_refusal(call_id: str, error: ToolError) -> bytes:
    try:
        return encode(ToolResultRecord(call_id=call_id, ok=False, error=error))
    except (TypeError, ValueError) as problem:
        _logger.error("the refusal of a tool call is no JSON, and another is given instead: %s", problem)
        message = "The call was refused, and the tool's reason is no JSON."
        return encode(ToolResultRecord(call_id=call_id, ok=False, error=ToolError(code="internal_error", message=message)))
