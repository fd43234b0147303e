"""`headrace memory`: put a conversation in, look at it, and hear what is wrong with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from headrace.cli.memory import application
from headrace.core.topics import Topics
from headrace.kafka.log import KafkaLog
from headrace.memory import TopicMemoryStore
from headrace.ports import ConversationRef, NewCompaction
from headrace.settings import Settings

SAMPLE = str(files("headrace").joinpath("samples/second-bakery.conversation.json"))
TRIP = ("--user", "ann", "--conversation", "trip")


def run(*arguments: str, text: str | None = None) -> Result:
    return CliRunner().invoke(application, list(arguments), input=text, terminal_width=200)


def ran(settings: Settings, *arguments: str, text: str | None = None) -> str:
    """What the command printed, when it did what it was told."""
    result = run(*arguments, *broker_options(settings), text=text)
    assert result.exit_code == 0, result.output
    return result.stdout


def broker_options(settings: Settings) -> Sequence[str]:
    assert settings.bootstrap_servers is not None
    return "--bootstrap-servers", settings.bootstrap_servers, "--namespace", settings.namespace


def shown(settings: Settings, *more: str) -> dict[str, object]:
    loaded: dict[str, object] = json.loads(ran(settings, "show", *TRIP, "--json", *more))
    return loaded


def test_a_sample_is_put_in_once_and_shown(settings: Settings) -> None:
    assert "168 entries added to conversation second-bakery of mara." in ran(settings, "import", SAMPLE)
    assert "0 entries added" in (again := ran(settings, "import", SAMPLE))
    assert "168 were there already" in again
    table = ran(settings, "show", "--user", "mara", "--conversation", "second-bakery")
    assert "Mara" in table
    assert "168 entries, 0 of them summaries, about" in table
    assert "168 entries added to conversation copy of bob" in ran(
        settings, "import", SAMPLE, "--user", "bob", "--conversation", "copy"
    )


def test_json_lines_from_standard_input_grow(settings: Settings) -> None:
    lines = '{"role": "user", "content": "one", "name": "Ann"}\n{"role": "assistant", "content": "two"}\n'
    assert "2 entries added" in ran(settings, "import", "-", *TRIP, text=lines)
    assert "1 entry added" in ran(settings, "import", "-", *TRIP, text=lines + '{"role": "user", "content": "three"}')
    assert shown(settings)["entries"] == [
        {"id": "trip-1", "role": "user", "name": "Ann", "at": at(settings, 0), "tokens": 1, "content": "one"},
        {"id": "trip-2", "role": "assistant", "name": None, "at": at(settings, 1), "tokens": 1, "content": "two"},
        {"id": "trip-3", "role": "user", "name": None, "at": at(settings, 2), "tokens": 2, "content": "three"},
    ]


def test_other_text_under_the_numbers_of_turns_that_are_there_is_refused(settings: Settings) -> None:
    ran(settings, "import", "-", *TRIP, text='{"role": "user", "content": "one"}\n{"role": "user", "content": "two"}')
    others = '{"role": "user", "content": "one"}\n{"role": "user", "content": "due"}\n{"role": "user", "content": "three"}'
    result = run("import", "-", *TRIP, *broker_options(settings), text=others)
    assert result.exit_code == 2
    assert "Turn trip-2 is in the memory already, with another role or text. Nothing was added." in " ".join(
        result.output.split()
    )
    assert [entry["content"] for entry in listed(settings)] == ["one", "two"]


def listed(settings: Settings) -> list[dict[str, object]]:
    entries = shown(settings)["entries"]
    assert isinstance(entries, list)
    return entries


def at(settings: Settings, index: int) -> str:
    entries = shown(settings)["entries"]
    assert isinstance(entries, list)
    told: str = entries[index]["at"]
    assert told.endswith("+00:00")
    return told


def test_entries_are_appended_once_by_id(settings: Settings) -> None:
    assert ran(settings, "append", *TRIP, "--role", "user", "--content", "hello", "--id", "h").startswith("Added h")
    assert ran(settings, "append", *TRIP, "--role", "user", "--content", "again", "--id", "h").startswith("Already there: h")
    ran(settings, "append", *TRIP, "--role", "assistant", "--name", "Bo", "--content", "-", text="from standard input")
    entries = shown(settings)["entries"]
    assert isinstance(entries, list)
    assert [(entry["role"], entry["name"], entry["content"]) for entry in entries] == [
        ("user", None, "hello"),
        ("assistant", "Bo", "from standard input"),
    ]


def test_what_summaries_replaced_is_shown_on_request(settings: Settings) -> None:
    ran(settings, "import", "-", *TRIP, text='{"role": "user", "content": "one"}\n{"role": "user", "content": "two"}')

    async def compact() -> None:
        log = KafkaLog(settings)
        async with TopicMemoryStore(log, Topics(settings.namespace)) as store:
            compaction = NewCompaction(job_id="j", base_version=-1, supersedes=["trip-1"], summary="sum", title="Numbers")
            await store.compact(ConversationRef("default", "ann", "trip"), compaction)
        await log.close()

    asyncio.run(compact())
    table = ran(settings, "show", *TRIP)
    assert "summary: Numbers" in table
    assert "2 entries, 1 of them summaries" in table
    assert "one" not in table
    everything = shown(settings, "--all")["entries"]
    assert isinstance(everything, list)
    assert [entry["content"] for entry in everything] == ["one", "sum", "two"]
    assert everything[0]["supersededBy"] == everything[1]["id"]
    assert "supersededBy" not in everything[1]


def test_a_conversation_never_heard_of_is_said_to_be_so(settings: Settings) -> None:
    assert "Nothing is known of conversation trip of ann." in ran(settings, "show", *TRIP)
    assert shown(settings)["entries"] == []


def test_what_was_said_moves_no_cursor_and_is_no_markup(settings: Settings) -> None:
    ran(settings, "append", *TRIP, "--role", "user", "--content", "a \x1b]0;title\x07 [red]b[/red] \x9b2J c\n\td")
    table = ran(settings, "show", *TRIP)
    assert "[red]b[/red]" in table
    assert not {"\x1b", "\x07", "\x9b"} & set(table)


WRONG = [
    (("import", "missing.json"), "missing.json cannot be read: No such file or directory."),
    (("import", "-"), "The conversation is empty."),
    (("append", *TRIP, "--role", "king", "--content", "x"), "--role 'king' is none of user, assistant, system, tool."),
    (("append", *TRIP, "--role", "summary", "--content", "x"), "--role 'summary' is none of"),
    (("append", *TRIP, "--role", "user", "--content", "  "), "--content is empty."),
]


@pytest.mark.parametrize(("arguments", "what"), WRONG)
def test_bad_input_is_said_without_a_broker(arguments: tuple[str, ...], what: str, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        result = run(*arguments, "--bootstrap-servers", "127.0.0.1:1", text="")
    assert result.exit_code == 2
    assert what in result.output
    assert "Traceback" not in result.output


def test_input_that_only_the_store_can_refuse_is_said_too(settings: Settings) -> None:
    result = run("append", *TRIP, "--role", "user", "--content", "x", "--id", "i" * 201, *broker_options(settings))
    assert result.exit_code == 2
    assert "id: String should have at most 200 characters" in result.output


@pytest.mark.parametrize("missing", [0, 2])
def test_whose_and_which_conversation_must_be_given(missing: int) -> None:
    given = TRIP[:missing] + TRIP[missing + 2 :]
    result = run("show", *given)
    assert result.exit_code == 2
    assert f"Missing option '{TRIP[missing]}'" in result.output


def test_no_broker_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    result = run("show", *TRIP)
    assert result.exit_code == 2
    assert "--bootstrap-servers" in result.output
