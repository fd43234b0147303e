"""The extractive summariser: what it writes, what it keeps, and what becomes of its own summaries."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headrace.memory.summarise.base import Summariser
from headrace.memory.summarise.extractive import ExtractiveSummariser, extract
from headrace.memory.summarise.features import read_sentences
from headrace.memory.summarise.guards import check_summary
from headrace.memory.summarise.lines import EXTRACT_NOTE, turns_of
from headrace.memory.summarise.scoring import worth
from headrace.memory.summarise.tokens import estimate_tokens, total_tokens
from headrace.models import MemoryEntry

MONDAY = datetime(2026, 5, 4, 9, 0, tzinfo=UTC)
# Long sentences that say nothing, so that none of them fits into what room is left.
SMALL_TALK = (
    "I hope you slept well in spite of that warm night and of whoever was singing under the window until nobody could bear it.",
    "It felt like being a small boat in a large soup this morning, if you know what I mean, and I am sure that you do by now.",
    "That was so very kind of you that it made me laugh, which I had not done since breakfast, or perhaps since the one before.",
    "You know how it is with such feelings, they come and they go as they like and nobody ever asks us what we think of them.",
)


def said(content: str, *, name: str | None = "Noor", day: int = 0, **fields: Any) -> MemoryEntry:
    values = {"role": "user", "at": MONDAY + timedelta(days=day), "id": f"{day}-{content[:40]}"} | fields
    return MemoryEntry(user_id="noor", conversation_id="club", name=name, content=content, **values)


def chatter(count: int, *, day: int = 0) -> list[MemoryEntry]:
    return [said(SMALL_TALK[number % 4], name=("Noor", "Ewan")[number % 2], day=day) for number in range(count)]


CONVERSATION = [
    said("Hello! Lovely weather. The kiln room at 12 Mill Row costs 380 euros a month, and we can have it from 1 June."),
    said("So we take the kiln room at 12 Mill Row. My cat disagrees.", name="Ewan"),
    *chatter(12),
    said("The opening party is on Friday 12 June. I will wear the hat.", day=1),
    *chatter(12, day=1),
    said("Ursel Brandt checks the wiring by 20 May. She laughed at the kettle, which was fair.", name="Ewan", day=8),
    *chatter(12, day=8),
]


async def test_it_is_a_summariser_and_says_its_name() -> None:
    summariser: Summariser = ExtractiveSummariser()
    assert summariser.name == "extractive"
    summary = await summariser.summarise(CONVERSATION, title="Pottery club", token_budget=120)
    assert not summary.truncated
    assert check_summary(summary, CONVERSATION, title="Pottery club") == summary.text


def test_it_writes_a_title_a_note_and_a_line_per_turn_with_day_and_speaker() -> None:
    assert extract(CONVERSATION, title="Pottery  club", token_budget=82).splitlines() == [
        "Pottery club",
        EXTRACT_NOTE,
        "2026-05-04 Noor: The kiln room at 12 Mill Row costs 380 euros a month, and we can have it from 1 June.",
        "Ewan: So we take the kiln room at 12 Mill Row.",
        "2026-05-05 Noor: The opening party is on Friday 12 June.",
        "2026-05-12 Ewan: Ursel Brandt checks the wiring by 20 May.",
    ]


def test_without_a_title_it_begins_with_the_note() -> None:
    assert extract(CONVERSATION, title=None, token_budget=110).startswith(f"{EXTRACT_NOTE}\n2026-05-04 Noor: ")


@pytest.mark.parametrize("budget", [1, 2, 7, 20, 50, 100, 300, 100_000])
def test_it_keeps_the_budget_and_is_shorter_than_what_it_is_of(budget: int) -> None:
    summary = extract(CONVERSATION, title="Pottery club", token_budget=budget)
    assert 0 < estimate_tokens(summary) <= budget
    assert estimate_tokens(summary) < total_tokens(CONVERSATION)


def test_it_uses_the_budget() -> None:
    shelves = [said(f"The bowl on shelf {number} costs {number + 20} euros.", name="Ewan") for number in range(60)]
    assert estimate_tokens(extract(shelves, title=None, token_budget=300)) > 285


@pytest.mark.parametrize("texts", [[], [said("Hm.")], [said("?! ... --- ?!" * 9)]])
def test_it_is_empty_where_nothing_can_be_said_in_less(texts: list[MemoryEntry]) -> None:
    assert extract(texts, title="Pottery club", token_budget=500) == ""


def test_common_words_are_better_than_nothing() -> None:
    texts = [said("So this is what we will do then. And that is not what you want, is it?"), said("It is. Oh well, why not?")]
    assert extract(texts, title=None, token_budget=12).removeprefix("2026-05-04 Noor: ") in texts[0].content + texts[1].content


def test_a_sentence_that_does_not_fit_is_cut_and_shows_it() -> None:
    text = said("The kiln room at 12 Mill Row costs 380 euros a month from 1 June to 30 September.")
    assert extract([text], title="Pottery club", token_budget=10) == "The kiln room at 12 Mill Row costs 380…"


def test_of_a_decision_that_changed_the_last_one_survives() -> None:
    changes = [
        said("The summer fair is on Saturday 6 June. We agreed on the fair in the yard.", day=0),
        *chatter(10),
        said("The yard is being paved, so the summer fair moves to Saturday 13 June.", name="Ewan", day=3),
        *chatter(10, day=3),
        said("Ok, final now: the summer fair is on Saturday 27 June. The 13th is dead.", day=9),
        *chatter(10, day=9),
    ]
    summary = extract(changes, title=None, token_budget=30)
    assert "27 June" in summary
    assert "6 June" not in summary.replace("27 June", "")


def test_what_is_decided_goes_before_what_is_told() -> None:
    texts = [
        said("My aunt was born in 1931 in Lisbon and had 14 cousins. I always think of her."),
        said("So we buy the second wheel for 900 euros. It hums a little."),
        said("Agreed, the second wheel for 900 euros.", name="Ewan"),
        *chatter(6),
    ]
    assert "we buy the second wheel for 900 euros" in extract(texts, title=None, token_budget=30)


def test_a_terse_verdict_stands_with_what_it_is_on_or_not_at_all() -> None:
    texts = [
        said("Blue glaze it is. Green dropped."),
        *chatter(8),
        said("The wheel in the corner needs 3 litres of oil by 9 May."),
    ]
    summaries = [extract(texts, title=None, token_budget=budget) for budget in range(10, 60)]
    assert ["Blue glaze" in summary for summary in summaries] == ["Green dropped" in summary for summary in summaries]
    assert "Blue glaze it is. Green dropped." in summaries[-1]


@pytest.mark.parametrize("answer", ["Fine, that works for me too.", "Outvoted. I shall wear my hat."])
def test_what_somebody_else_says_yes_to_counts_more(answer: str) -> None:
    def worth_of_proposal(reply: str, *, replies: str) -> float:
        sentences = read_sentences(turns_of([said("Throwing on Thursday evenings."), said(reply, name=replies), *chatter(6)]))
        return worth(sentences[0], condensed=False)

    unanswered = worth_of_proposal("My aunt made it in Lisbon.", replies="Ewan")
    assert worth_of_proposal(answer, replies="Ewan") > unanswered
    assert worth_of_proposal(answer, replies="Noor") == unanswered


def test_what_was_said_twice_stands_there_once() -> None:
    texts = [
        said("The key number for the kiln is K-4471."),
        said("So the key number for the kiln is K-4471.", name="Ewan"),
        said("The wheel in the corner needs 3 litres of oil by 9 May."),
        *chatter(10),
    ]
    summary = extract(texts, title=None, token_budget=45)
    assert summary.count("K-4471") == 1
    assert "3 litres" in summary


def test_interjections_go_and_nothing_else_is_reworded() -> None:
    texts = [said("Oh, the kiln fires at 1,240 degrees. By the way, cones are 12 cents each."), *chatter(8)]
    assert "Noor: The kiln fires at 1,240 degrees. Cones are 12 cents each." in extract(texts, title=None, token_budget=60)


class TestSecondSummary:
    """A summary that is summarised again, together with what was said since."""

    def test_facts_of_the_first_survive_and_its_lines_stay_lines(self) -> None:
        first = extract(CONVERSATION, title="Pottery club", token_budget=82)
        since = [*chatter(20, day=30), said("The glaze order of 240 euros arrives on 3 July.", day=31), *chatter(20, day=31)]
        second = extract([self._stored(first), *since], title="Pottery club, summer", token_budget=102)
        assert second.splitlines() == [
            "Pottery club, summer",
            *first.splitlines()[1:],
            "2026-06-04 Noor: The glaze order of 240 euros arrives on 3 July.",
        ]

    def test_days_and_speakers_stay_with_their_lines_when_lines_go(self) -> None:
        first = f"{EXTRACT_NOTE}\n2026-05-04 Noor: {SMALL_TALK[0]}\nEwan: So we take the kiln room at 12 Mill Row.\n"
        second = extract([self._stored(f"{first}2026-05-05 Noor: {SMALL_TALK[1]}")], title=None, token_budget=32)
        assert second == f"{EXTRACT_NOTE}\n2026-05-04 Ewan: So we take the kiln room at 12 Mill Row."

    def test_a_summary_in_another_form_becomes_points_without_headings(self) -> None:
        foreign = "## Pottery club\n\n* The kiln room costs 380 euros.\n- **Ursel Brandt** checks the wiring by 20 May.\n"
        summary = extract([self._stored(foreign), *chatter(10)], title=None, token_budget=60)
        assert summary.splitlines()[1:3] == [
            "- The kiln room costs 380 euros.",
            "- **Ursel Brandt** checks the wiring by 20 May.",
        ]
        assert "#" not in summary

    def _stored(self, text: str) -> MemoryEntry:
        return said(text, name=None, role="summary", day=29)


class TestUnusualTexts:
    def test_paragraphs_of_a_text_are_lines_without_a_speaker(self) -> None:
        text = (
            "The kiln fires at 1,240 degrees for 9 hours.\n\nCones cost 12 cents each and come from Limoges.\n\n"
            + "And so it is. " * 40
        )
        summary = extract([said(text, role="tool", name="Kiln manual")], title="Kiln manual", token_budget=60)
        assert summary.splitlines() == [
            "Kiln manual",
            EXTRACT_NOTE,
            "2026-05-04 The kiln fires at 1,240 degrees for 9 hours.",
            "Cones cost 12 cents each and come from Limoges.",
        ]

    @pytest.mark.parametrize(
        ("text", "kept"),
        [
            ("窯は千二百四十度で焼く。今日は暑い。会費は毎月3800円です。" + "そうですね。" * 30, "会費は毎月3800円です。"),
            ("Schön war es. Der Brennofen kostet ab dem 1. Juni 380 Euro im Monat. " + "Ach ja. " * 40, "380 Euro im Monat."),
            ("الفرن جاهز. الإيجار 380 يورو في الشهر. " + "شكرا جزيلا. " * 30, "380 يورو"),
        ],
    )
    def test_figures_carry_other_languages(self, text: str, kept: str) -> None:
        assert kept in extract([said(text)], title=None, token_budget=40)

    def test_a_title_like_abbreviation_ends_no_sentence(self) -> None:
        texts = [said("We met Mr. B. Okafor on 3 June. It rained."), *chatter(6)]
        assert "We met Mr. B. Okafor on 3 June." in extract(texts, title=None, token_budget=30)

    def test_code_and_text_without_full_stops_come_in_pieces(self) -> None:
        code = "\n".join(f"kiln_{number}.fire(degrees={900 + number})" for number in range(200))
        prose = " ".join(f"shelf {number} holds bowls" for number in range(400))
        for text in (code, prose, "x" * 20_000):
            assert 100 < estimate_tokens(extract([said(text)], title=None, token_budget=200)) <= 200


ONE_PLAN_IN_MANY_WORDS = " ".join(
    f"We take the 5 euro plan {' '.join(('so', 'then')[number >> bit & 1] for bit in range(13))}." for number in range(5_000)
)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("." * 400_000, 500),
        ("1," * 200_000, 500),
        ("a" * 400_000, 500),
        ('."' * 200_000, 500),
        ("We take the 5 euro plan. " * 16_000, 500),
        (ONE_PLAN_IN_MANY_WORDS, 50_000),
    ],
    ids=["marks", "digits", "letters", "quotes", "repetition", "many words"],
)
def test_its_work_grows_no_faster_than_the_text(text: str, budget: int) -> None:
    """Each of these takes minutes where anything grows with the square of the length. Time is of this thread alone."""
    started = time.thread_time()
    assert (
        estimate_tokens(extract([said(text), said("The kiln room costs 380 euros.")], title=None, token_budget=budget)) <= budget
    )
    assert time.thread_time() - started < 15
