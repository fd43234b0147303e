"""Conversations from files: what is read, what is refused and how that is said."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import ConversationInvalid
from headrace.memory import load_conversation, parse_conversation

SAMPLES = ("second-bakery", "ledger-migration", "choir-tour", "drowned-village")


@pytest.mark.parametrize("wrapped", [False, True], ids=["list", "messages"])
def test_messages_of_a_chat_program_are_read(wrapped: bool) -> None:
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello", "name": "ann"}]
    text = json.dumps({"model": "m", "messages": said} if wrapped else said).encode()
    parsed = parse_conversation(text, user_id="u", conversation_id="c")
    assert [(each.role, each.content, each.name, each.id) for each in parsed.entries] == [
        ("system", "Be brief.", None, "c-1"),
        ("user", "Hello", "ann", "c-2"),
    ]


def test_of_messages_in_parts_the_texts_are_taken_and_calls_of_tools_are_passed_over() -> None:
    said: list[dict[str, Any]] = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "Look:"}, {"type": "image_url"}, {"type": "text", "text": "this."}],
        },
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": "42", "tool_call_id": "1"},
    ]
    parsed = parse_conversation(json.dumps({"messages": said}).encode(), user_id="u", conversation_id="c")
    assert [(each.role, each.content) for each in parsed.entries] == [("user", "Look:\nthis."), ("tool", "42")]


@pytest.mark.parametrize("name", SAMPLES)
def test_the_samples_that_ship_are_read_whole(name: str) -> None:
    path = Path(str(files("headrace").joinpath(f"samples/{name}.conversation.json")))
    raw = json.loads(path.read_text("utf-8"))
    parsed = load_conversation(path)
    assert (parsed.user_id, parsed.conversation_id) == (raw["userId"], name)
    assert [entry.content for entry in parsed.entries] == [turn["content"] for turn in raw["turns"]]
    assert [entry.id for entry in parsed.entries] == [f"{name}-{turn['turn']}" for turn in raw["turns"]]
    assert all(entry.name and entry.at for entry in parsed.entries)
    assert load_conversation(raw) == parsed


def test_json_lines_are_numbered_by_their_order() -> None:
    text = b"""
{"role": "user", "content": "hello", "name": "Ann", "at": "2026-03-02T09:30:00Z"}

{"role": "assistant", "content": "hi", "extra": 1}
"""
    parsed = parse_conversation(text, user_id="ann", conversation_id="trip")
    assert [(entry.id, entry.role, entry.content, entry.name, entry.at) for entry in parsed.entries] == [
        ("trip-1", "user", "hello", "Ann", datetime(2026, 3, 2, 9, 30, tzinfo=UTC)),
        ("trip-2", "assistant", "hi", None, None),
    ]


def test_one_line_is_a_conversation_too() -> None:
    parsed = parse_conversation(b'{"role": "user", "content": "hello"}', user_id="ann", conversation_id="trip")
    assert len(parsed.entries) == 1


def test_what_is_given_overrides_what_the_file_says() -> None:
    raw = {"userId": "ann", "conversationId": "trip", "turns": [{"role": "user", "content": "x"}]}
    parsed = load_conversation(raw, user_id="bob", conversation_id="c" * 200)
    assert (parsed.user_id, parsed.conversation_id) == ("bob", "c" * 200)
    assert parsed.entries[0].id == "c" * 180 + "-1"


def turn(**fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": "x", **fields}


def whole(*turns: Any, **fields: Any) -> bytes:
    return json.dumps({"userId": "ann", "conversationId": "trip", "turns": list(turns), **fields}).encode()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"", "is empty"),
        (b" \n\t", "is empty"),
        (b"hello", "Line 1 is no JSON"),
        (b'{"role": "user", "content": "x"}\n{"role": ', "Line 2 is no JSON"),
        (b'{"role": "user", "content": "x"}\n[1]', 'Line 2 is no JSON object with "role" and "content"'),
        (b"\xff\xfe", "Line 1 is no JSON"),
        (b"[1, 2]", r"turns\.0: Input should be a valid dictionary"),
        (b"[]", "turns: List should have at least 1 item"),
        (b'"text"', "JSON list of turns"),
        (b'{"messages": []}', "turns: List should have at least 1 item"),
        (b'{"messages": "x"}', "turns: Input should be a valid list"),
        (b'{"messages": null}', "turns: Field required"),
        (b'{"entries": []}', '"turns" or "messages"'),
        (whole(), "turns: List should have at least 1 item"),
        (whole("x"), r"turns\.0"),
        (whole(turn(), {"content": "x"}), "Turn 2 is wrong: role: Field required"),
        (whole({"role": "user"}), "Turn 1 is wrong: content: Field required"),
        (whole(turn(role="king")), "Turn 1 is wrong: role: Input should be 'user'"),
        (whole(turn(content="")), "Turn 1 is wrong: content"),
        (whole(turn(at="yesterday")), "Turn 1 is wrong: at"),
        (whole(turn(turn="one")), "Turn 1 is wrong: turn"),
        (whole(turn(turn=4), turn(turn=5), turn(turn=4)), "Turn 3 has the turn number 4, as turn 1 has"),
        (whole(turn(), userId="u" * 201), "userId"),
        (whole(turn(), userId=None), "give --user"),
        (whole(turn(), conversationId=None), "give --conversation"),
        (b'{"role": "user", "content": "x"}', "give --user and --conversation"),
    ],
)
def test_what_is_no_conversation_is_refused_with_what_is_wrong_and_where(text: bytes, what: str) -> None:
    with pytest.raises(ConversationInvalid, match=what):
        parse_conversation(text)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConversationInvalid, match=r"missing\.json cannot be read: No such file"):
        load_conversation(tmp_path / "missing.json")
    with pytest.raises(ConversationInvalid, match="cannot be read: Is a directory"):
        load_conversation(tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["turns", "role", "content", "at", "x"]), inner),
    max_leaves=12,
)


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_conversation_or_refused(text: bytes) -> None:
    try:
        parsed = parse_conversation(text, user_id="ann", conversation_id="trip")
    except ConversationInvalid as error:
        assert str(error)
    else:
        assert parsed.entries
        assert len({entry.id for entry in parsed.entries}) == len(parsed.entries)
