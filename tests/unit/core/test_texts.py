"""Texts that are too long to be shown keep their beginning and their end; misspelt names are told with what was meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.texts import cut_in_the_middle, unknown_name


@pytest.mark.parametrize(("longest", "cut"), [(10, "0123456789"), (9, "012 … 789"), (6, "01 … 9"), (3, " … "), (1, " ")])
def test_a_long_text_keeps_both_ends(longest: int, cut: str) -> None:
    assert cut_in_the_middle("0123456789", longest) == cut


@given(st.text(max_size=40), st.integers(0, 30))
def test_it_is_never_longer_than_it_may_be(text: str, longest: int) -> None:
    cut = cut_in_the_middle(text, longest)
    assert len(cut) <= longest or cut == text == ""
    assert cut == text or len(text) > longest


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("user_id", "there is no such name: did you mean userId? (there are: userId, title)"),
        ("UserID", "there is no such name: did you mean userId? (there are: userId, title)"),
        ("tilte", "there is no such name: did you mean title? (there are: userId, title)"),
        ("colour", "there is no such name (there are: userId, title)"),
    ],
)
def test_a_name_that_is_none_is_told_with_the_nearest_one(name: str, told: str) -> None:
    assert unknown_name(name, ["userId", "title"]) == told


def test_of_many_names_some_are_told() -> None:
    told = unknown_name("nothing", [f"field{number}" for number in range(30)])
    assert told.endswith("field18, field19, ...)")
    assert unknown_name("nothing", []) == "there is no such name, and no other"
