"""Numbers among equals: none twice, none missing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.core.numbering import Numbering


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans())))
def test_no_number_is_taken_twice_and_none_is_missing(steps: list[tuple[str, bool]]) -> None:
    numbering: Numbering[str] = Numbering()
    taken: dict[str, set[int]] = {"a": set(), "b": set()}
    for kind, gives_back in steps:
        if gives_back and taken[kind]:
            numbering.give_back(kind, taken[kind].pop())
            continue
        number = numbering.take(kind)
        assert number == min(set(range(len(taken[kind]) + 1)) - taken[kind])
        taken[kind].add(number)
