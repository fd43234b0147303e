"""Which attempt of a recorded job stands for what came of it."""

from __future__ import annotations

from typing import Any

import pytest

from headrace import JobContext
from headrace.core.comparison import Verdict
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
