"""Conversations from files: headrace's own JSON form, a list of messages as chat programs keep it, and JSON lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from headrace.codec import describe_problems
from headrace.errors import ConversationInvalid
from headrace.fields import Identity, Timestamp
from headrace.models import MemoryRole
from headrace.ports import NewEntry

_LONGEST_PREFIX = 180


class _Turn(BaseModel):
    """One turn of a conversation. Fields that are not named here are passed over."""

    model_config = ConfigDict(extra="ignore")

    turn: Annotated[int, Field(ge=0)] | None = None
    role: MemoryRole
    content: Annotated[str, StringConstraints(min_length=1)]
    name: str | None = None
    at: Timestamp | None = None


class _Document(BaseModel):
    """A conversation in one JSON object."""

    model_config = ConfigDict(extra="ignore")

    userId: Identity | None = None  # noqa: N815 - as it is spelt in the file
    conversationId: Identity | None = None  # noqa: N815 - as it is spelt in the file
    turns: Annotated[list[dict[str, Any]], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class ParsedConversation:
    """A conversation, ready to be put into memory.

    Attributes:
        entries: in their order. Each has the id `<conversation>-<turn>`, so that the same file adds nothing twice.
    """

    user_id: str
    conversation_id: str
    entries: tuple[NewEntry, ...]


def load_conversation(
    source: str | Path | Mapping[str, Any], *, user_id: str | None = None, conversation_id: str | None = None
) -> ParsedConversation:
    """The conversation in a file, or in an object that was read already.

    Args:
        source: path of a file, or the JSON object itself.
        user_id: whose it is; what the source says when None.
        conversation_id: what it is called; what the source says when None.

    Raises:
        ConversationInvalid: it cannot be read, or is no conversation; the message says what is wrong and where.
    """
    if isinstance(source, Mapping):
        return _from_object(source, user_id, conversation_id)
    try:
        text = Path(source).read_bytes()
    except OSError as error:
        raise ConversationInvalid(f"{source} cannot be read: {error.strerror}.") from None
    return parse_conversation(text, user_id=user_id, conversation_id=conversation_id)


def parse_conversation(text: bytes, *, user_id: str | None = None, conversation_id: str | None = None) -> ParsedConversation:
    """The conversation in a text, each turn with `role`, `content`, and maybe `name`, `at`.

    It is one JSON object with `turns`, or with `messages` as chat APIs name them; a JSON list of turns; or JSON lines.

    Raises:
        ConversationInvalid: it is none of these; the message says what is wrong and where.
    """
    if not text.strip():
        raise ConversationInvalid("The conversation is empty.")
    try:
        whole = orjson.loads(text)
    except orjson.JSONDecodeError:
        return _from_lines(text, user_id, conversation_id)
    if isinstance(whole, list):
        return _from_object({"turns": whole}, user_id, conversation_id)
    if isinstance(whole, dict) and ("turns" in whole or "messages" in whole):
        return _from_object(whole, user_id, conversation_id)
    if isinstance(whole, dict) and "role" in whole:
        return _from_lines(text, user_id, conversation_id)
    raise ConversationInvalid(
        'This is no conversation: give a JSON list of turns, one JSON object with such a list as "turns" or "messages", '
        'or on each line one with "role" and "content".'
    )


def _from_object(whole: Mapping[str, Any], user_id: str | None, conversation_id: str | None) -> ParsedConversation:
    try:
        messages = whole.get("messages") if "turns" not in whole else None
        turns = {"turns": _turns_of(messages) if isinstance(messages, list) else messages} if messages is not None else {}
        document = _Document.model_validate({**whole, **turns})
    except ValidationError as error:
        raise ConversationInvalid(f"This is no conversation: {describe_problems(error)}.") from None
    return _parsed(document.turns, "Turn", user_id or document.userId, conversation_id or document.conversationId)


def _turns_of(messages: list[Any]) -> list[Any]:
    """Messages of a chat API as turns: of content in parts the texts, and nothing of one that only calls tools."""
    turns: list[Any] = []
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
            message = {**message, "content": "\n".join(text for text in texts if isinstance(text, str))}
        if content or not (isinstance(message, dict) and message.get("tool_calls")):
            turns.append(message)
    return turns


def _from_lines(text: bytes, user_id: str | None, conversation_id: str | None) -> ParsedConversation:
    turns: list[Any] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            turns.append(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            raise ConversationInvalid(f"Line {number} is no JSON: {error}.") from None
        if not isinstance(turns[-1], dict):
            raise ConversationInvalid(f'Line {number} is no JSON object with "role" and "content".')
    return _parsed(turns, "Line", user_id, conversation_id)


def _parsed(turns: Sequence[dict[str, Any]], unit: str, user_id: str | None, conversation_id: str | None) -> ParsedConversation:
    if not user_id or not conversation_id:
        missing = " and ".join(
            option for option, value in (("--user", user_id), ("--conversation", conversation_id)) if not value
        )
        raise ConversationInvalid(f"The source does not say whose conversation it is: give {missing}.")
    entries: list[NewEntry] = []
    seen: dict[int, int] = {}
    for position, raw in enumerate(turns, start=1):
        try:
            turn = _Turn.model_validate(raw)
        except ValidationError as error:
            raise ConversationInvalid(f"{unit} {position} is wrong: {describe_problems(error)}.") from None
        number = position if turn.turn is None else turn.turn
        if number in seen:
            raise ConversationInvalid(f"{unit} {position} has the turn number {number}, as {unit.lower()} {seen[number]} has.")
        seen[number] = position
        entry_id = f"{conversation_id[:_LONGEST_PREFIX]}-{number}"
        entries.append(NewEntry(role=turn.role, content=turn.content, name=turn.name, id=entry_id, at=turn.at))
    return ParsedConversation(user_id, conversation_id, tuple(entries))
