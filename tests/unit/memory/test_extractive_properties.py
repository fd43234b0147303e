"""What holds of an extract whatever it is of."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from headrace.memory.summarise.extractive import extract
from headrace.memory.summarise.features import read_sentences
from headrace.memory.summarise.lines import EXTRACT_NOTE, Draft, turns_of
from headrace.memory.summarise.scoring import _DECISION, _FACT
from headrace.memory.summarise.sentences import LONGEST_SENTENCE, split_sentences, tighten
from headrace.memory.summarise.tokens import estimate_tokens, total_tokens
from headrace.models import MemoryEntry

VOCABULARY = "we take the oven for 380 euros on Friday 3 June not so final Ida Ruiz K-44 gl_rows moved to because oh well and you"
WORDS = st.sampled_from(VOCABULARY.split())
SENTENCES = st.builds(lambda words, end: " ".join(words) + end, st.lists(WORDS, min_size=1, max_size=9), st.sampled_from(".!?"))
PROSE = st.lists(SENTENCES, min_size=1, max_size=6).map(" ".join)
TITLES = st.none() | st.text(max_size=60)


@st.composite
def entries(draw: st.DrawFn, contents: st.SearchStrategy[str]) -> list[MemoryEntry]:
    return [
        MemoryEntry(
            user_id="ida",
            conversation_id="bowls",
            id=str(number),
            role=draw(st.sampled_from(["user", "assistant", "system", "tool", "summary"])),
            name=draw(st.none() | st.sampled_from(["Ida", "Bo: the second", ":"])),
            content=content,
            at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=9 * number),
        )
        for number, content in enumerate(draw(st.lists(contents, min_size=1, max_size=12)))
    ]


@given(entries(st.text(max_size=400)), TITLES, st.integers(min_value=-1, max_value=400))
@settings(deadline=None, max_examples=60)
def test_any_text_is_taken_and_the_budget_kept(texts: list[MemoryEntry], title: str | None, budget: int) -> None:
    summary = extract(texts, title=title, token_budget=budget)
    assert estimate_tokens(summary) <= max(0, budget)
    assert not summary or estimate_tokens(summary) < total_tokens(texts)
    assert summary == extract(texts, title=title, token_budget=budget)


@given(entries(PROSE), st.integers(min_value=20, max_value=200))
@settings(deadline=None, max_examples=60)
def test_every_line_is_of_one_turn_in_the_order_of_the_turns(texts: list[MemoryEntry], budget: int) -> None:
    """And no word stands there that its turn has not, nor in another order."""
    lines = [line for line in extract(texts, title=None, token_budget=budget).splitlines() if line != EXTRACT_NOTE]
    rest = iter(texts)
    for line in lines:
        words = re.sub(r"^(- )?(\d{4}-\d\d-\d\d )?([^:]{1,24}: )?", "", line).removesuffix("…").lower()
        cut = words.split()[:-1] if line.endswith("…") else words.split()
        assert any(_in_order(cut, entry.content.lower().split()) for entry in rest), f"{line!r} is of no turn that is left"


def _in_order(words: list[str], source: list[str]) -> bool:
    rest = iter(source)
    return all(word in rest for word in words)


@given(entries(PROSE), st.integers(min_value=60, max_value=300))
@settings(deadline=None, max_examples=60)
def test_its_lines_are_read_again_as_they_were_written(texts: list[MemoryEntry], budget: int) -> None:
    spoken = [entry for entry in texts if entry.role in ("user", "assistant")]
    summary = extract(spoken, title=None, token_budget=budget)
    assume(EXTRACT_NOTE in summary and "…" not in summary)
    stored = MemoryEntry(user_id="ida", conversation_id="bowls", id="s", role="summary", content=summary, at=spoken[0].at)
    turns = turns_of([stored])
    draft = Draft(turns, title=None, limit=4 * budget)
    for number, turn in enumerate(turns):
        for position in range(len(turn.sentences)):
            assert draft.add(number, position)
    assert draft.text() == summary


@given(st.text(max_size=2_000))
def test_sentences_are_pieces_of_the_text_and_hold_all_its_words(text: str) -> None:
    sentences = split_sentences(text)
    assert all(0 < len(sentence) <= LONGEST_SENTENCE and sentence == sentence.strip() for sentence in sentences)
    assert _letters("".join(sentences)) == _letters(text)
    assert all(tighten(sentence).lower() in sentence.lower() for sentence in sentences if sentence.isascii())


def _letters(text: str) -> list[str]:
    return re.findall(r"[^\W_]", text)


@given(entries(PROSE))
@settings(deadline=None, max_examples=20)
def test_every_sign_that_is_weighed_is_seen_and_every_sign_seen_is_weighed(texts: list[MemoryEntry]) -> None:
    for sentence in read_sentences(turns_of(texts)):
        assert set(sentence.signs) == set(_FACT) | set(_DECISION)


@given(entries(PROSE), st.integers(min_value=0, max_value=600), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_a_draft_knows_its_exact_length(texts: list[MemoryEntry], limit: int, random: object) -> None:
    turns = turns_of(texts)
    draft = Draft(turns, title="Bowls", limit=limit)
    places = [(number, position) for number, turn in enumerate(turns) for position in range(len(turn.sentences))]
    random.shuffle(places)  # type: ignore[attr-defined]
    for place in places:
        if draft.add(*place):
            assert draft.length == len(draft.text()) <= limit
