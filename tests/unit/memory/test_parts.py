"""A text that is too long for one request, in parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.memory.summarise.parts import parts_of


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("short", ["short"]),
        ("x" * 20, ["x" * 20]),
        ("One is here.\n\nTwo is. Three is.", ["One is here.\n\n", "Two is. Three is."]),
        ("One is here. Two is it, and so on.", ["One is here. ", "Two is it, and so ", "on."]),
        ("here there everywhere and on", ["here there ", "everywhere and on"]),
        ("x" * 45, ["x" * 20, "x" * 20, "x" * 5]),
    ],
)
def test_it_is_cut_after_paragraphs_else_sentences_else_words_else_anywhere(text: str, parts: list[str]) -> None:
    assert list(parts_of(text, 20)) == parts


@given(st.text("ab .!?\n\t。\"'", max_size=300) | st.text(max_size=100), st.integers(1, 60))
def test_nothing_is_lost_and_no_part_is_too_long_or_empty(text: str, longest: int) -> None:
    parts = list(parts_of(text, longest))
    assert "".join(parts) == text
    assert all(0 < len(part) <= longest for part in parts) or parts == [""]
    assert all(len(part) >= longest // 2 for part in parts[:-1])
