"""What is taken out of an export, by the paths of fields."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel

from headrace import AbstractWorker, JobContext
from headrace.core.comparison import Verdict
from headrace.errors import ArgumentsInvalid
from headrace.replay.exports.redaction import REDACTED, Redaction
from headrace.replay.history import RecordedJob
from support.histories import past_attempt, recorded_job
from support.reruns import Does, rerun


def test_values_are_replaced_wherever_the_path_leads() -> None:
    redaction = Redaction(["args.password", "args.users.name", "ctx.secret.*", "error.message", "result", "args.typo"])
    raw = {
        "id": "job",
        "args": {"password": {"deep": 1}, "users": [{"name": "ada", "age": 3}, {"name": "ben"}], "kept": "password"},
        "ctx": {"secret": {"a": 1, "b": [2]}, "userId": "u"},
        "error": {"type": "E", "message": "ada is not known"},
        "attempts": [{"attempt": 1, "error": {"type": "E", "message": "ada is not known"}}, {"attempt": 2}],
        "result": None,
    }
    assert redaction.job(raw) == {
        "id": "job",
        "args": {"password": REDACTED, "users": [{"name": REDACTED, "age": 3}, {"name": REDACTED}], "kept": "password"},
        "ctx": {"secret": {"a": REDACTED, "b": [REDACTED]}, "userId": "u"},
        "error": {"type": "E", "message": REDACTED},
        "attempts": [{"attempt": 1, "error": {"type": "E", "message": REDACTED}}, {"attempt": 2}],
        "result": REDACTED,
    }
    assert raw["args"] == {"password": {"deep": 1}, "users": [{"name": "ada", "age": 3}, {"name": "ben"}], "kept": "password"}
    assert redaction.counts == {
        "args.password": 1, "args.users.name": 2, "ctx.secret.*": 2, "error.message": 2, "result": 1, "args.typo": 0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "hidden", "count"),
    [
        ("args.tags", {"tags": [REDACTED, REDACTED]}, 1),
        ("args.tags.*", {"tags": [REDACTED, REDACTED]}, 2),
        ("args.nested", {"nested": [REDACTED, [REDACTED, []], REDACTED]}, 1),
        ("args.nested.*", {"nested": [REDACTED, [REDACTED, []], {"x": [REDACTED]}]}, 3),
        ("args.nested.x", {"nested": ["a", [1, []], {"x": [REDACTED]}]}, 1),
        ("args.none", {"none": []}, 1),
        ("args.*", {"tags": [REDACTED, REDACTED], "nested": [REDACTED, [REDACTED, []], REDACTED], "none": []}, 3),
        ("args.tags.*.x", {}, 0),
    ],
    ids=["list", "elements", "nested", "nested-elements", "names-in-it", "empty", "all", "below-a-text"],
)
def test_a_list_keeps_its_length(path: str, hidden: dict[str, Any], count: int) -> None:
    """Else a worker whose arguments are a list would refuse them."""
    args = {"tags": ["a", "b"], "nested": ["a", [1, []], {"x": [2]}], "none": []}
    redaction = Redaction([path])
    assert redaction.job({"args": args}) == {"args": args | hidden}
    assert redaction.counts == {path: count}


@pytest.mark.parametrize("path", ["args.deep", "args.deep.*", "args.deep.x"])
def test_lists_may_be_nested_as_deep_as_they_can_be_read(path: str) -> None:
    deep: Any = {"x": "secret"}
    for _ in range(1_000):
        deep = [deep]
    hidden = Redaction([path]).job({"args": {"deep": deep}})["args"]["deep"]
    for _ in range(1_000):
        [hidden] = hidden
    assert hidden == (REDACTED if path == "args.deep" else {"x": REDACTED})


def test_of_recordings_the_name_comes_first_whatever_is_in_it() -> None:
    redaction = Redaction(["recordings.model.key", "recordings.http.get", "recordings.*.token", "recordings.all"])
    assert redaction.recording("model", {"key": 1, "x": 2}) == {"key": REDACTED, "x": 2}
    assert redaction.recording("http.get", {"get": 1}) == REDACTED
    assert redaction.recording("other", [{"token": 1, "key": 2}]) == [{"token": REDACTED, "key": 2}]
    assert redaction.recording("all", 5) == REDACTED
    assert redaction.recording("mod", {"el": {"key": 1}}) == {"el": {"key": 1}}


def test_of_memory_the_texts_can_be_left_out() -> None:
    entry = {"content": "hello", "name": "ada", "role": "user", "userId": "u"}
    assert Redaction(["memory.content", "memory.name"]).memory(entry) == {**entry, "content": REDACTED, "name": REDACTED}


@pytest.mark.parametrize(
    ("path", "hidden"),
    [
        ("ctx.userId", True),
        ("args.conversationId", True),
        ("args.*", True),
        ("args.x", False),
        ("result", False),
    ],
)
def test_whoever_must_not_know_the_conversation_does_not_get_its_memory(path: str, hidden: bool) -> None:
    assert Redaction([path]).hides_conversations is hidden


@pytest.mark.parametrize(
    "path",
    [
        *(
            "",
            "args..x",
            "id",
            "workerName",
            "tenant",
            "attempts.status",
            "*",
            "args",
            "ctx",
            "recordings",
            "memory",
            "memory.id",
        ),
        *(
            "error",
            "error.*",
            "error.type",
            "attemptTimeout",
            "startedAt",
            "retry",
            "retry.maxAttempts",
            "source",
            "source.offset",
        ),
        *("progress", "progress.fraction", "schedule", "orderingKey.x", "memory.content.x"),
    ],
)
def test_what_cannot_be_left_out_is_refused(path: str) -> None:
    with pytest.raises(ArgumentsInvalid, match="`redact`"):
        Redaction([path])


def test_what_is_refused_is_told_with_what_can_be_left_out() -> None:
    with pytest.raises(ArgumentsInvalid, match=r"'attemptTimeout'.*args\.\*, ctx\.\*, result .*error\.message.*memory\.title"):
        Redaction(["attemptTimeout"])


def hidden(job: RecordedJob, *paths: str) -> RecordedJob:
    """The job as an export has it that left these paths out."""
    redaction = Redaction(paths)
    assert job.snapshot is not None
    return replace(job, record=redaction.job(job.record), snapshot=redaction.job(job.snapshot), redacted=paths)


@pytest.mark.parametrize(
    ("path", "then", "now", "verdict"),
    [
        ("result.x", {"x": 1, "y": 2}, {"x": 1, "y": 2}, Verdict.SAME),
        ("result.x", {"x": 1, "y": 2}, {"x": 5, "y": 2}, Verdict.SAME),
        ("result.x", {"x": 1, "y": 2}, {"x": 1, "y": 3}, Verdict.DIFFERENT),
        ("result.users.name", {"users": [{"name": "ada"}]}, {"users": [{"name": "ben"}]}, Verdict.SAME),
        ("result.users.name", {"users": [{"name": "ada"}]}, {"users": []}, Verdict.DIFFERENT),
        ("result.*", {"x": 1}, {"x": 2}, Verdict.SAME),
        ("result.names", {"names": ["ada"]}, {"names": ["ben", ["eva"]]}, Verdict.SAME),
        ("result.names", {"names": ["ada"]}, {}, Verdict.DIFFERENT),
        # So earlier versions wrote a list.
        ("result.names", {"names": REDACTED}, {"names": ["ben", "eva"]}, Verdict.SAME),
        ("result", [1], {"x": 2}, Verdict.SAME),
        ("result", None, 2, Verdict.SAME),
        ("args.x", {"x": 1}, {"x": 2}, Verdict.DIFFERENT),
    ],
)
async def test_a_redacted_part_of_a_result_is_not_compared(path: str, then: Any, now: Any, verdict: Verdict) -> None:
    async def returns(args: dict[str, Any], ctx: JobContext) -> Any:
        return now

    told = await rerun(Does(returns), hidden(recorded_job("does", result=then), path))
    assert told.comparison.verdict is verdict
    assert told.recorded is not None
    assert (told.recorded.result == told.replayed.result) is (verdict is Verdict.SAME)


async def test_a_redacted_message_is_not_compared_and_the_type_is() -> None:
    async def fails(args: dict[str, Any], ctx: JobContext) -> Any:
        raise ValueError("secret")

    attempts = [past_attempt(1, "failed", ("ValueError", "another")), past_attempt(2, "failed", ("ValueError", "secret"))]
    job = hidden(recorded_job("does", error=("ValueError", "secret"), attempts=attempts), "error.message")
    for attempt in (1, 2):
        told = await rerun(Does(fails), job, attempt=attempt)
        assert told.comparison.verdict is Verdict.SAME
        assert told.replayed.error_message == REDACTED
    other = hidden(recorded_job("does", error=("KeyError", "secret")), "error.message")
    assert (await rerun(Does(fails), other)).comparison.verdict is Verdict.DIFFERENT


async def test_what_is_allowed_leaves_jobs_that_can_be_replayed() -> None:
    async def returns(args: dict[str, Any], ctx: JobContext) -> Any:
        return 1

    every = ["args.*", "ctx.*", "result", "error.message", "error.traceback", "orderingKey", "idempotencyKey", "progress.text"]
    redaction = Redaction(every)
    progress = {"fraction": 0.5, "text": "half", "at": "2026-03-02T09:30:01.500Z"}
    for told in ({"result": {"a": 1}}, {"error": ("E", "m")}):
        job = recorded_job("does", {"a": 1}, orderingKey="key", idempotencyKey="key", progress=progress, **told)
        assert job.snapshot is not None
        left = replace(job, record=redaction.job(job.record), snapshot=redaction.job(job.snapshot), redacted=every)
        assert (await rerun(Does(returns), left)).replayed.status == "completed"
    assert all(redaction.counts[path] for path in every if path != "error.traceback")


@pytest.mark.parametrize(
    "recorded", ["page[?]", f"page[{'0' * 32}]", f"site#1/page[{'0' * 32}]"], ids=["unsure", "key", "within"]
)
def test_a_call_that_is_told_apart_from_others_has_the_name_that_its_worker_gave_it(recorded: str) -> None:
    assert Redaction(["recordings.page"]).recording(recorded, {"a": 1}) == REDACTED
    assert Redaction(["recordings.page.a"]).recording(recorded, {"a": 1, "b": 2}) == {"a": REDACTED, "b": 2}
    assert Redaction(["recordings.page.a"]).failure(recorded, {"type": "E", "message": "m"})["message"] == REDACTED
    assert Redaction(["recordings.other"]).recording(recorded, 1) == 1


class Sending(BaseModel):
    to: list[str]
    pages: list[list[str]] = []


class Sends(AbstractWorker[Sending]):
    """Sends something to several."""

    name = "sends"

    async def run(self, args: Sending, ctx: JobContext) -> int:
        return len(args.to) + len(args.pages[0])


@pytest.mark.parametrize("paths", [("args.to", "args.pages"), ("args.*",), ("args.to.*", "args.pages.*")], ids=" ".join)
async def test_a_worker_that_takes_a_list_still_gets_one(paths: tuple[str, ...]) -> None:
    job = hidden(recorded_job("sends", {"to": ["ann", "bob"], "pages": [["secret", "one"]]}, result=4), *paths)
    assert "secret" not in str(job)
    assert (await rerun(Sends(), job)).comparison.verdict is Verdict.SAME
