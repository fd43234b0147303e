"""What is refused as a summary, and what is not."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import SummaryRejected
from headrace.memory.summarise import Summary, check_summary, estimate_tokens
from support.memories import entry

SOURCES = [
    entry("We meet at the harbour on 4 May, and Tomas brings the keys to the boat. " * 5),
    entry("Sorry, I can't make Tuesday. Wednesday would do, if the others agree to it. " * 5),
]


def test_a_summary_is_taken_as_it_is_without_space_around_it() -> None:
    assert check_summary(Summary("\n Harbour, 4 May; Tomas has the keys. \n"), SOURCES) == "Harbour, 4 May; Tomas has the keys."


@pytest.mark.parametrize("text", ["", "   \n\t "])
def test_an_empty_summary_is_refused(text: str) -> None:
    with pytest.raises(SummaryRejected, match="empty"):
        check_summary(Summary(text), SOURCES)


def test_a_summary_that_was_cut_off_is_refused() -> None:
    with pytest.raises(SummaryRejected, match=r"cut off before its end.*the keys to the"):
        check_summary(Summary("They meet on 4 May, and Tomas has the keys to the", truncated=True), SOURCES)


@pytest.mark.parametrize("longer", [0, 1, 1000])
def test_a_summary_that_is_not_shorter_is_refused(longer: int) -> None:
    tokens = sum(estimate_tokens(source.content) for source in SOURCES)
    with pytest.raises(SummaryRejected, match=f"not shorter.*{tokens + longer} tokens for {tokens}"):
        check_summary(Summary("x" * 4 * (tokens + longer)), SOURCES)
    assert check_summary(Summary("x" * 4 * (tokens - 1)), SOURCES)


EXCUSES = [
    "Error: connection reset by peer",
    "error 500",
    "**Error:** the model is overloaded",
    "ValueError: no such model",
    "openai.RateLimitError: too many requests",
    "Traceback (most recent call last):\n  File ...",
    "HTTP 503 Service Unavailable",
    "502 Bad Gateway",
    '{"error": {"message": "overloaded"}}',
    '{ "detail": "Not found" }',
    "<!DOCTYPE html><html>",
    "<html><body>nginx</body></html>",
    "Failed: timeout",
    "null",
    "N/A",
    "I'm sorry, I can't help with that.",
    "I\u2019m sorry, but I cannot summarise this conversation.",
    "I am very sorry, but I am unable to process this.",
    "Sorry, I can't do that.",
    "I cannot provide a summary of this content.",
    "I can't assist with this request.",
    "Unfortunately, I cannot summarise this text.",
    "I apologize, but the conversation is too long.",
    "As an AI language model, I do not have opinions.",
    "As a large language model I cannot",
    "Please provide the conversation you would like me to summarise.",
    "Could you share the text?",
]


@pytest.mark.parametrize("text", EXCUSES)
def test_an_error_or_a_refusal_is_no_summary(text: str) -> None:
    with pytest.raises(SummaryRejected, match="error or a refusal"):
        check_summary(Summary(text), SOURCES)


def test_a_refusal_under_the_title_is_found_too() -> None:
    with pytest.raises(SummaryRejected, match="error or a refusal"):
        check_summary(Summary("## Boat trip\n\nI'm sorry, I can't help with that."), SOURCES, title="Boat trip")


@pytest.mark.parametrize(
    "text",
    [
        "Sorry, I can't make Tuesday. Tomas brings the keys.",
        "Error handling was discussed: retries stay, the queue goes.",
        "450 services were moved; 500 people are served a day.",
        "503 Harbour Street is the address.",
        "The deploy failed twice: Ann restarts it on Monday.",
        "Ann apologised. Nobody can make Tuesday.",
        "Failed 500 times before it worked; now it runs.",
        "Sorry tale of the boat: sold on 4 May.",
        "None of the three dates fits; 4 May stands.",
    ],
)
def test_a_summary_that_only_looks_like_one_is_taken(text: str) -> None:
    assert check_summary(Summary(text), SOURCES) == text


def test_no_turn_of_the_samples_is_taken_for_an_excuse_of_the_summariser() -> None:
    for sample in ("second-bakery", "ledger-migration"):
        turns = json.loads(files("headrace").joinpath(f"samples/{sample}.conversation.json").read_text("utf-8"))["turns"]
        sources = [entry(turn["content"]) for turn in turns]
        for turn in turns:
            assert check_summary(Summary(turn["content"]), sources)


@given(st.text(max_size=200), st.text(min_size=1, max_size=400))
def test_whatever_passes_is_not_empty_and_shorter(text: str, source: str) -> None:
    sources = [entry(source)]
    try:
        taken = check_summary(Summary(text), sources)
    except SummaryRejected as error:
        assert "unchanged" in str(error)
    else:
        assert taken
        assert estimate_tokens(taken) < estimate_tokens(source)
