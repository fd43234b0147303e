"""Which sentences of a turn are taken as one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.memory.summarise.verdicts import join_verdicts


@pytest.mark.parametrize(
    ("sentences", "joined"),
    [
        (["Blue glaze it is.", "Green dropped."], ["Blue glaze it is. Green dropped."]),
        (["The kiln room at 12 Mill Row is ours from June.", "It is settled."], None),
        (["No wheel.", "We rent the one in the school for 90 euros a month."], None),
        (["Gas kiln.", "That is my last word on kilns, and I will not hear of it again."], None),
    ],
    ids=["two halves", "a verdict after", "a verdict before", "a fragment before what closes it"],
)
def test_a_verdict_is_one_with_what_it_is_on(sentences: list[str], joined: list[str] | None) -> None:
    assert join_verdicts(sentences) == tuple(joined or [" ".join(sentences)])


@pytest.mark.parametrize(
    "sentences",
    [
        ["So we take the kiln room at 12 Mill Row.", "My cat disagrees."],
        ["Gas or electric?", "It is settled."],
        ["The gas kiln costs 900 euros more than the other one.", "No?"],
        ["Gas kiln.", "The other one was dropped by two strong men from the back of a van in Mill Row last June."],
        [f"The kiln room is {'very ' * 30}warm.", "It is settled."],
    ],
    ids=["a joke", "an answer", "a question", "a story", "what would be too long"],
)
def test_other_sentences_stay_apart(sentences: list[str]) -> None:
    assert join_verdicts(sentences) == tuple(sentences)


WORDS = st.lists(st.sampled_from(["No", "kiln", "it is", "dropped", "final", "blue?", "x" * 30]), min_size=1, max_size=9)


@given(st.lists(WORDS.map(" ".join), max_size=12))
def test_nothing_is_lost_and_nothing_grows_without_end(sentences: list[str]) -> None:
    joined = join_verdicts(sentences)
    assert " ".join(joined) == " ".join(sentences)
    assert all(len(text) <= 160 for text in joined if text not in sentences)
