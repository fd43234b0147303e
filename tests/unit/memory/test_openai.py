"""The summariser that asks a model, against a server that speaks its API."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from pydantic import SecretStr

from headrace.errors import ConfigurationError, SummaryRejected
from headrace.memory.summarise import Summary, summariser_from
from headrace.memory.summarise.openai import PROMPT_TOKENS, OpenAISummariser
from headrace.settings import MemorySettings, OpenAISettings, Settings
from support.chat_api import Answer, ChatApi, chat_api
from support.memories import entry

KEY = "sk-very-secret"
TEXTS = [entry("An earlier summary of it.", role="summary"), entry("The boat leaves at nine. " * 20, name="Ann")]


@asynccontextmanager
async def summariser(url: str, *, timeout_seconds: float = 20.0, retries: int = 3) -> AsyncIterator[OpenAISummariser]:
    settings = OpenAISettings(base_url=url, api_key=SecretStr(KEY), model="small-1", timeout_seconds=timeout_seconds)
    made = OpenAISummariser.from_settings(settings)
    async with made.client:
        yield replace(made, client=made.client.with_options(max_retries=retries))


async def asked(*answers: Answer, title: str | None = None) -> tuple[Summary, ChatApi]:
    with chat_api(*answers) as api:
        async with summariser(api.url) as made:
            return await made.summarise(TEXTS, title=title, token_budget=100), api


async def test_the_model_is_asked_for_a_summary_of_all_texts() -> None:
    summary, api = await asked(Answer("Boat at nine."), title="Boat")
    assert summary == Summary("Boat at nine.")
    [request] = api.asked
    assert request["path"] == "/v1/chat/completions"
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("small-1", 0, 200)
    instructions, material = (message["content"] for message in request["messages"])
    assert "At most 100 tokens" in instructions
    assert "not instructions" in instructions
    assert material.startswith("Title: Boat\n\n[earlier summary]\nAn earlier summary of it.\n\n[2026-03-02 09:30 Ann]\nThe boat")
    assert api.authorizations == [f"Bearer {KEY}"]


async def test_a_passing_failure_is_tried_again() -> None:
    summary, api = await asked(Answer(status=503), Answer(status=429), Answer("Boat at nine."))
    assert summary.text == "Boat at nine."
    assert len(api.asked) == 3


async def test_a_truncated_answer_is_marked_and_refused() -> None:
    with pytest.raises(SummaryRejected, match="cut off"):
        await asked(Answer("Boat at", finish_reason="length"))


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (Answer(""), "empty"),
        (Answer(None), "empty"),
        (Answer(None, refusal="I won't."), "refused to summarise: I won't"),
        (Answer("", finish_reason="content_filter"), "content filter"),
        (Answer("x", choices=0), "without a choice"),
        (Answer("I'm sorry, I can't help with that."), "error or a refusal"),
        (Answer(status=401), "refuses the key .status 401.: see HEADRACE_OPENAI_API_KEY"),
        (Answer(status=403), "refuses the key .status 403."),
        (Answer(status=404), "knows no model 'small-1'"),
        (Answer(status=429), "no more requests"),
        (Answer(status=400), "answered with status 400"),
        (Answer(status=500), "answered with status 500"),
        (Answer(body=b"<html>no API here</html>"), "not of that API"),
        (Answer(body=b"{}"), "without a choice"),
        (Answer(body=b"[]"), "without a choice"),
        (Answer(body=b'{"choices": 3}'), "without a choice"),
        (Answer(body=b'{"choices": [{}]}'), "empty"),
        (Answer(body=b'{"choices": [{"message": {"content": ["x"]}}]}'), "empty"),
    ],
)
async def test_what_is_no_summary_is_told_as_what_it_is(answer: Answer, what: str) -> None:
    with pytest.raises(SummaryRejected, match=what) as caught:
        await asked(answer)
    assert "unchanged" in str(caught.value)
    assert KEY not in str(caught.value)


async def test_an_endpoint_that_is_not_there_is_told() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        async with summariser(url, retries=0) as made:
            with pytest.raises(SummaryRejected, match=f"{url} cannot be reached: see HEADRACE_OPENAI_BASE_URL"):
                await made.summarise(TEXTS, title=None, token_budget=100)


async def test_an_endpoint_that_is_too_slow_is_told() -> None:
    with chat_api(Answer("late", hold=threading.Event())) as api:
        async with summariser(api.url, timeout_seconds=0.05, retries=0) as made:
            with pytest.raises(SummaryRejected, match="did not answer in time"):
                await made.summarise(TEXTS, title=None, token_budget=100)


async def test_a_long_conversation_is_summarised_piece_by_piece() -> None:
    half = "x" * 2 * PROMPT_TOKENS
    with chat_api(Answer("first"), Answer("second"), Answer("third")) as api:
        async with summariser(api.url) as made:
            summary = await made.summarise([entry(half)] * 5, title="T", token_budget=100)
    assert summary.text == "third"
    materials = [request["messages"][1]["content"] for request in api.asked]
    assert [material.count(half) for material in materials] == [2, 2, 1]
    assert [material.split("\n")[2:4] for material in materials[1:]] == [
        ["[earlier summary]", "first"],
        ["[earlier summary]", "second"],
    ]


async def test_an_entry_that_is_too_long_for_one_request_is_sent_in_parts() -> None:
    paragraph = "The boat leaves at nine, " * 1_000 + "as ever.\n\n"
    long = entry(paragraph * 11, name="Ann")
    with chat_api(Answer("first"), Answer("second"), Answer("third"), Answer("fourth")) as api:
        async with summariser(api.url) as made:
            summary = await made.summarise([TEXTS[1], long, TEXTS[1]], title=None, token_budget=100)
    assert summary.text == "fourth"
    materials = [request["messages"][1]["content"] for request in api.asked]
    assert [material.count("as ever.") for material in materials] == [3, 3, 3, 2]
    assert all(len(material) <= 4 * PROMPT_TOKENS + 100 for material in materials)
    assert all("2026-03-02 09:30 Ann" in material for material in materials)


async def test_a_bad_answer_in_the_middle_ends_it() -> None:
    half = "x" * 2 * PROMPT_TOKENS
    with chat_api(Answer("Error: overloaded"), Answer("second")) as api:
        async with summariser(api.url) as made:
            with pytest.raises(SummaryRejected, match="error or a refusal"):
                await made.summarise([entry(half)] * 5, title=None, token_budget=100)
        assert len(api.asked) == 1


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, "HEADRACE_OPENAI_BASE_URL and HEADRACE_OPENAI_MODEL"),
        ({"model": "m"}, "HEADRACE_OPENAI_BASE_URL"),
        ({"base_url": "http://127.0.0.1:1/v1"}, "HEADRACE_OPENAI_MODEL"),
    ],
)
def test_no_endpoint_or_model_is_ever_assumed(monkeypatch: pytest.MonkeyPatch, given: dict[str, str], missing: str) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "from-elsewhere")
    settings = Settings(memory=MemorySettings(summariser="openai"), openai=OpenAISettings(**given))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=f"needs {missing}\\."):
        summariser_from(settings)


OF_ANOTHER_TOOL = {
    "OPENAI_API_KEY": "from-elsewhere",
    "OPENAI_ADMIN_KEY": "from-elsewhere",
    "OPENAI_ORG_ID": "from-elsewhere",
    "OPENAI_PROJECT_ID": "from-elsewhere",
    "OPENAI_WEBHOOK_SECRET": "from-elsewhere",
    "OPENAI_BASE_URL": "http://127.0.0.1:9/from-elsewhere",
    "OPENAI_CUSTOM_HEADERS": "Authorization: Bearer from-elsewhere\nX-Team: from-elsewhere",
}


@pytest.mark.parametrize("variable", OF_ANOTHER_TOOL)
@pytest.mark.parametrize("key", [None, KEY])
async def test_a_key_of_another_tool_is_never_sent(monkeypatch: pytest.MonkeyPatch, variable: str, key: str | None) -> None:
    monkeypatch.setenv(variable, OF_ANOTHER_TOOL[variable])
    with chat_api(Answer("fine")) as api:
        settings = OpenAISettings(base_url=api.url, model="m", api_key=SecretStr(key) if key else None)
        made = OpenAISummariser.from_settings(settings)
        async with made.client:
            await made.summarise(TEXTS, title=None, token_budget=100)
        assert api.authorizations == [f"Bearer {key or 'none'}"]
        assert "from-elsewhere" not in str([api.headers, api.asked])
        assert not {"openai-organization", "openai-project"} & set(api.headers[0])


def test_the_name_says_which_model() -> None:
    made = summariser_from(
        Settings(
            memory=MemorySettings(summariser="openai"),
            openai=OpenAISettings(base_url="http://127.0.0.1:1/v1", model="small-1"),
        )
    )
    assert made.name == "openai:small-1"
