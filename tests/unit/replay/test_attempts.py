"""Which attempt of a recorded job stands for what came of it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from headrace import JobContext
from headrace.core.comparison import Verdict
from headrace.core.snapshots import shorten
from headrace.core.status import JobStatus
from headrace.replay.rerunning.attempts import PastAttempt
from headrace.replay_errors import AttemptUnknown
from support.histories import past_attempt, recorded_job
from support.reruns import Does, rerun


@pytest.mark.parametrize("status", ["scheduled", "queued", "running"])
async def test_of_a_job_that_has_not_ended_only_an_attempt_that_is_named_is_compared(status: str) -> None:
    """Its newest attempt has failed, and is no end: the job waits for its retry."""

    async def returns(args: dict[str, Any], ctx: JobContext) -> Any:
        return ctx.attempt

    attempts = [past_attempt(1, "failed", ("E", "m")), past_attempt(2, "failed", ("E", "m"))]
    job = recorded_job("does", status=status, attempts=attempts)
    told = await rerun(Does(returns), job)
    assert (told.comparison.verdict, told.recorded, told.attempt) == (Verdict.NOT_COMPARABLE, None, 2)
    for number in (1, 2):
        named = await rerun(Does(returns), job, attempt=number)
        assert (named.comparison.verdict, named.replayed.result) == (Verdict.NEWLY_FIXED, number)


@pytest.mark.parametrize(
    ("kept", "number", "told"),
    [
        ([], 2, "Job a-job has no attempt 2: none was begun."),
        ([1], 2, "Job a-job has no attempt 2: there is attempt 1 alone."),
        ([1, 2, 3], 4, "Job a-job has no attempt 4: there are attempts 1 to 3."),
        ([5, 6], 0, "Job a-job has no attempt 0: there are attempts 5 to 6."),
        ([5, 6], 4, "Nothing is left of attempt 4 of job a-job: kept are attempts 5 to 6."),
        ([21], 1, "Nothing is left of attempt 1 of job a-job: kept is attempt 21 alone."),
    ],
    ids=["none", "one", "later", "no-number", "gone", "gone-but-one"],
)
def test_an_attempt_that_there_is_not_is_told_with_those_that_there_are(kept: list[int], number: int, told: str) -> None:
    job = recorded_job("does", attempts=[past_attempt(each, "failed", ("E", "m")) for each in kept], status="failed")
    with pytest.raises(AttemptUnknown, match=f"^{re.escape(told)}$"):
        PastAttempt(job, number)


async def test_what_became_of_a_job_whose_newest_record_is_damaged_is_not_known() -> None:
    async def returns(args: dict[str, Any], ctx: JobContext) -> Any:
        return 3

    told = await rerun(Does(returns), replace(recorded_job("does", result=3), damaged=True))
    assert (told.comparison.verdict, told.recorded) == (Verdict.NOT_COMPARABLE, None)
    assert told.comparison.reason == "the newest record of what became of it is damaged"


@pytest.mark.parametrize(
    ("status", "error"),
    [("cancelled", None), ("failed", ("poison", "its processes died")), ("failed", ("worker_unknown", "nobody has it"))],
    ids=["cancelled", "poison", "unknown"],
)
async def test_the_last_attempt_of_a_job_that_came_to_its_end_while_it_waited_is_compared_by_itself(
    status: str, error: tuple[str, str] | None
) -> None:
    """It failed, and its job was to make another, but was cancelled, or given up."""

    async def returns(args: dict[str, Any], ctx: JobContext) -> Any:
        return ctx.attempt

    async def raises(args: dict[str, Any], ctx: JobContext) -> Any:
        raise ValueError("no use" * 200)

    attempts = [past_attempt(1, "failed", ("E", "m")), past_attempt(2, "failed", ("ValueError", shorten("no use" * 200, 500)))]
    job = recorded_job("does", status=status, error=error, attempts=attempts)
    told = await rerun(Does(returns), job, attempt=2)
    assert told.recorded is not None and (told.recorded.status, told.recorded.error_type) == (JobStatus.FAILED, "ValueError")
    assert (told.comparison.verdict, told.replayed.result) == (Verdict.NEWLY_FIXED, 2)
    assert (await rerun(Does(raises), job, attempt=2)).comparison.verdict is Verdict.SAME
    assert (await rerun(Does(returns), job)).comparison.verdict is Verdict.NOT_COMPARABLE, "the job itself"


async def test_the_last_attempt_of_a_job_that_ended_with_it_is_compared_in_full() -> None:
    async def returns(args: dict[str, Any], ctx: JobContext) -> Any:
        return 8

    attempts = [past_attempt(1, "failed", ("E", "m")), past_attempt(2, "completed")]
    told = await rerun(Does(returns), recorded_job("does", result=7, attempts=attempts), attempt=2)
    assert told.recorded is not None and (told.recorded.result, told.comparison.verdict) == (7, Verdict.DIFFERENT)


async def test_an_attempt_that_was_cancelled_itself_cannot_be_compared() -> None:
    async def returns(args: dict[str, Any], ctx: JobContext) -> Any:
        return 1

    job = recorded_job("does", status="cancelled", attempts=[past_attempt(1, "cancelled")])
    assert (await rerun(Does(returns), job, attempt=1)).comparison.verdict is Verdict.NOT_COMPARABLE
