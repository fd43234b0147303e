"""What code of today hears that asks for more, or for something else, than was recorded."""

from __future__ import annotations

from typing import Any

import pytest

from headrace import JobContext, NotRecorded
from headrace.core.comparison import Verdict
from headrace.recordings.names import keyed
from support.histories import InMemoryHistory, recorded_job
from support.reruns import Does, rerun


@pytest.mark.parametrize(
    ("recorded", "asked", "why"),
    [
        (["rate", "rate"], ["rate"] * 3, "'rate', number 2: it has 2 by that name, and today's code asks for more"),
        (["rate"], ["rates"], "'rates', number 0: today's code asks anew, or by another name than then; or the attempt went"),
        ([keyed("page", "a"), "page"], [("page", "b")], "it has 2 of the same name with other keys or none, so that the key is"),
        ([], ["rate"], "'rate', number 0: today's code asks anew"),
    ],
    ids=["once more", "another name", "another key", "nothing"],
)
async def test_who_asks_for_what_was_not_recorded_hears_what_to_do(recorded: list[str], asked: list[Any], why: str) -> None:
    async def asks(args: dict[str, Any], ctx: JobContext) -> None:
        for each in asked:
            name, key = each if isinstance(each, tuple) else (each, None)
            await (ctx.recorded(name, lambda: 1) if key is None else ctx.recorded(name, lambda: 1, key=key))

    history = InMemoryHistory()
    for name in recorded:
        history.record("a-job", 1, name, 5)
    told = await rerun(Does(asks), recorded_job("does"), history)
    assert told.error is not None
    assert why in told.error["message"]
    assert told.error["message"].endswith(
        "If that is meant, as of a new call, `--live` asks outside for it now; if not, mend the code: a call has to have the name"
        " and the key that it had then, and to be made as often."
    )


async def test_who_does_without_what_was_not_recorded_is_compared_where_it_ends_as_it_did() -> None:
    """Else nobody knows what it would have made of an answer, whichever way it ends."""

    async def asks(args: dict[str, Any], ctx: JobContext) -> Any:
        try:
            return await ctx.recorded("late", lambda: 1)
        except Exception as refused:
            assert isinstance(refused, NotRecorded)
            if "raises" in args:
                raise ValueError(args["raises"]) from refused
            return 0

    failed = ("ValueError", "no")
    compared = [
        (await rerun(Does(asks), job)).comparison
        for job in (
            recorded_job("does", result=0),
            recorded_job("does", {"raises": "no"}, error=failed),
            recorded_job("does", result=1),
            recorded_job("does", error=failed),
            recorded_job("does", {"raises": "yes"}, error=failed),
            recorded_job("does", {"raises": "no"}, result=0),
        )
    ]
    assert [each.verdict for each in compared] == [Verdict.SAME] * 2 + [Verdict.NOT_COMPARABLE] * 4
    assert all("asks for 'late', number 0, which was not recorded" in each.reason for each in compared[2:])
