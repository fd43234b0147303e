"""Texts that are too long to be shown keep their beginning and their end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.texts import cut_in_the_middle


@pytest.mark.parametrize(("longest", "cut"), [(10, "0123456789"), (9, "012 … 789"), (6, "01 … 9"), (3, " … "), (1, " ")])
def test_a_long_text_keeps_both_ends(longest: int, cut: str) -> None:
    assert cut_in_the_middle("0123456789", longest) == cut


@given(st.text(max_size=40), st.integers(0, 30))
def test_it_is_never_longer_than_it_may_be(text: str, longest: int) -> None:
    cut = cut_in_the_middle(text, longest)
    assert len(cut) <= longest or cut == text == ""
    assert cut == text or len(text) > longest
