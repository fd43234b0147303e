"""How a replay of many jobs is counted, and what is told of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.cli.replay_stream import _row
from headrace.core.comparison import Comparison, Outcome, Verdict, compare
from headrace.core.status import JobStatus
from headrace.errors import ConfigurationError
from headrace.recordings.names import keyed
from headrace.replay.streams.stream import wanted_workers
from headrace.replay.streams.summary import CATEGORIES, Replayed, Summary, categories_from, told_not_in_code
from headrace.replay_errors import NothingInCode


def completed(result: Any = None, seconds: float | None = 0.01) -> Outcome:
    return Outcome(JobStatus.COMPLETED, result, seconds=seconds)


def failed(kind: str, message: str = "", seconds: float | None = 0.01) -> Outcome:
    return Outcome(JobStatus.FAILED, None, kind, message, seconds)


def replayed(number: int, recorded: Outcome | None, today: Outcome, worker: str = "digest") -> Replayed:
    return Replayed(f"job-{number}", worker, compare(recorded, today), recorded, today)


def summary_of(*every: Replayed) -> Summary:
    summary = Summary()
    for each in every:
        summary.add(each)
    return summary


def test_every_job_is_counted_under_its_verdict_and_a_slower_one_beside_it() -> None:
    summary = summary_of(
        replayed(1, completed({"a": 1}), completed({"a": 1.0})),
        replayed(2, completed(1), completed(2), "other"),
        replayed(3, completed(1), failed("ValueError")),
        replayed(4, failed("ValueError"), completed(1)),
        replayed(5, completed(1, 0.1), completed(1, 0.5)),
        replayed(6, None, completed(1)),
        replayed(7, Outcome(JobStatus.CANCELLED), completed(1)),
    )
    counts = {name: count for name, count in summary.to_json()["counts"].items() if count}
    assert counts == {"same": 2, "different": 1, "newly-failing": 1, "newly-fixed": 1, "slower": 1, "not-comparable": 2}
    assert summary.jobs == 7
    assert summary.by_worker["other"] == {"different": 1}
    assert list(summary.to_json()["counts"]) == list(CATEGORIES)
    assert [each["id"] for each in summary.to_json()["notSame"]] == ["job-2", "job-3", "job-4", "job-5", "job-6", "job-7"]
    json.dumps(summary.to_json())


def test_the_worst_is_what_most_jobs_have_in_common() -> None:
    """Numbers and ids in a message make no kind of their own."""
    rare = replayed(0, completed(), failed("KeyError", "'x'"))
    often = [replayed(number, completed(), failed("ValueError", f"no page {number}")) for number in range(1, 4)]
    [first, second] = summary_of(rare, *often).worst("newly-failing")
    assert (first.count, first.what, first.example) == (3, "ValueError: no page 1", "job-1")
    assert (second.count, second.what) == (1, "KeyError: 'x'")


def unanswered(number: int, name: str) -> Replayed:
    """A job whose code asks by a name for what was not recorded."""
    reason = f"today's code asks for {name!r}, number {number}, which was not recorded: --live asks outside for it"
    comparison = Comparison(Verdict.NOT_COMPARABLE, reason=reason)
    return Replayed(f"job-{number}", "digest", comparison, completed(1), failed("headrace.errors.NotRecorded"))


def test_calls_that_differ_by_their_keys_alone_are_one_kind() -> None:
    every = [unanswered(number, keyed("model", f"prompt {number}")) for number in range(1_200)]
    every += [unanswered(number, f"site#{number}/{keyed('model', number)}[?]") for number in range(7)]
    summary = summary_of(*every, unanswered(0, "model"))
    assert [kind.count for kind in summary.worst("not-comparable")] == [1_200, 7, 1]
    assert summary.worst("not-comparable")[0].what == every[0].comparison.reason, "the example has its key"
    assert summary.to_json()["worstLeftOut"] == {}


def test_what_the_worst_leave_out_is_counted() -> None:
    told = [(word, 3) for word in "abcde"] + [(word, 2) for word in "fg"]
    summary = summary_of(*(replayed(n, completed(), failed("E", word)) for word, times in told for n in range(times)))
    assert summary.not_shown("newly-failing") == (2, 4, True)
    assert summary.to_json()["worstLeftOut"] == {"newly-failing": {"kinds": 2, "jobs": 4}}
    assert summary.not_shown("different") == (0, 0, True)
    row = _row(summary, "newly-failing")
    assert [note.plain for note in row.notes][-2:] == ["  3 × digest: E: e  (job-0)", "  and 2 more kinds, with 4 jobs"]
    for number in range(1_100):
        letters = f"{number:b}".replace("1", "x").replace("0", "y")
        summary.add(replayed(number, completed(), failed("ValueError", letters)))
    assert _row(summary, "newly-failing").notes[-1].plain.startswith("  and at least 996 more kinds, with ")
    assert summary.to_json()["worstLeftOut"]["newly-failing"]["atLeast"] is True


def test_the_worst_of_the_slower_ones_took_most_seconds_more() -> None:
    times = [(0.1, 0.4), (1.0, 3.5), (0.2, 0.5)]
    [kind] = summary_of(*(replayed(n, completed(1, a), completed(1, b)) for n, (a, b) in enumerate(times))).worst("slower")
    assert (kind.count, kind.what, kind.example) == (3, "1.000 s → 3.500 s", "job-1")


def test_a_different_result_is_told_by_where_it_differs() -> None:
    before, after = {"page": {"words": [1, 2, 3]}, "to": "ada"}, {"page": {"words": [1, 5, 3]}, "to": "ada"}
    [kind] = summary_of(replayed(1, completed(before), completed(after))).worst("different")
    assert kind.what == "result.page.words.1: 2 → 5"
    [kind] = summary_of(replayed(1, failed("A", "a"), failed("B", "b"))).worst("different")
    assert kind.what == "A: a → B: b"


def test_an_error_of_which_nobody_knows_the_type_is_told_as_a_difference() -> None:
    odd = Outcome(JobStatus.COMPLETED, 1, None, "half of it", 0.01)
    assert [kind.what for kind in summary_of(replayed(1, odd, completed(1))).worst("different")] == [
        "an error: half of it → no error"
    ]


def test_of_a_long_error_all_is_told() -> None:
    long = f"the beginning {'x' * 5_000} the end"
    summary = summary_of(replayed(1, completed(), failed("ValueError", long)))
    told = json.loads(json.dumps(summary.to_json()))
    assert told["notSame"][0]["replayed"]["error"]["message"] == long
    assert told["worst"]["newly-failing"][0]["what"] == f"ValueError: {long}"
    [kind] = summary_of(replayed(1, completed("a" * 9_000 + "b"), completed("c" * 9_000 + "d"))).worst("different")
    assert len(kind.what) < 700 and 'b"' in kind.what and kind.what.endswith('d"'), "a result may be large"


def test_a_result_is_told_as_json_has_it() -> None:
    [kind] = summary_of(replayed(1, completed({"a": [None]}), completed({"a": [{"b": True}]}))).worst("different")
    assert kind.what == 'result.a.0: null → {"b":true}'


def test_why_it_cannot_be_compared_is_told() -> None:
    missing = Comparison(Verdict.NOT_COMPARABLE, reason="'rate' was not recorded")
    summary = summary_of(Replayed("job-1", "digest", missing, completed(1), failed("headrace.errors.NotRecorded", "long")))
    assert [kind.what for kind in summary.worst("not-comparable")] == ["'rate' was not recorded"]
    assert summary.to_json()["notSame"][0]["reason"] == "'rate' was not recorded"
    assert not summary.any_of({"newly-failing"})


def test_very_many_kinds_take_no_more_than_some_memory() -> None:
    summary = summary_of(
        *(replayed(n, completed(), failed("ValueError", f"{n:b}".replace("1", "x").replace("0", "y"))) for n in range(1, 1_500))
    )
    kinds = summary._kinds["newly-failing"]
    assert len(kinds) <= 1_001
    assert sum(kind.count for kind in kinds.values()) == 1_499


def test_many_that_are_only_slower_take_no_place_of_others() -> None:
    slower = (replayed(number, completed(1, 0.1), completed(1, 0.5)) for number in range(10_100))
    summary = summary_of(*slower, replayed(10_100, completed(1), completed(2)))
    assert summary.listed[-1].job_id == "job-10100"
    assert (summary.counts["slower"], len(summary.listed), summary.left_out) == (10_100, 1_001, 9_100)


def test_what_is_listed_takes_no_more_than_some_memory() -> None:
    summary = summary_of(*(replayed(n, completed("x" * 1_000), completed("y" * 1_000)) for n in range(10_100)))
    assert (summary.counts["different"], len(summary.listed)) == (10_100, 10_000)
    assert (len(summary.to_json()["notSame"]), summary.to_json()["notSameLeftOut"]) == (10_000, 100)
    outcomes = [outcome for each in summary.listed for outcome in (each.recorded, each.replayed)]
    assert all(outcome is not None and outcome.result is None for outcome in outcomes)


def test_categories_are_named() -> None:
    assert categories_from("newly-failing, slower") == {"newly-failing", "slower"}
    with pytest.raises(ConfigurationError, match=r"There is no category 'failing' .* newly-failing"):
        categories_from("failing")
    assert summary_of(replayed(1, completed(1), completed(2))).any_of({"different"})
    assert not summary_of(replayed(1, completed(1), completed(1))).any_of({"different"})


def test_jobs_that_nobody_can_run_are_told_by_worker_and_are_none_that_were_run() -> None:
    summary = summary_of(replayed(1, completed(1, 0.1), completed(1, 0.5)), replayed(2, completed(1), completed(2), "other"))
    summary.leave_out({"gone": 1, "renamed": 3_000, "other": 2})
    assert list(summary.not_in_code.items()) == [("renamed", 3_000), ("other", 2), ("gone", 1)]
    assert told_not_in_code(summary.not_in_code) == [
        "3,000 jobs of renamed: not in the loaded code",
        "2 jobs of other: not in the loaded code",
        "1 job of gone: not in the loaded code",
    ]
    told = summary.to_json()
    assert (told["jobs"], told["counts"]["not-in-code"], told["workers"]["renamed"]["not-in-code"]) == (2, 3_003, 3_000)
    assert summary.any_of({"not-in-code"})
    assert [summary.jobs_of(each) for each in (["digest"], ["other", "renamed"], ["renamed"], [])] == [1, 1, 0, 0]


def test_json_tells_of_a_sandbox_that_is_left() -> None:
    assert Summary().to_json()["notRemoved"] is None
    assert Summary(not_removed="It is still there.").to_json()["notRemoved"] == "It is still there."


def test_workers_are_those_of_the_code() -> None:
    assert wanted_workers((), ["a", "b"], ["b", "c"]) == ("b",)
    assert wanted_workers(("a",), ["a", "b"], ["b"]) == ("a",)
    with pytest.raises(ConfigurationError, match=r"named 'c'. Loaded are: a, b"):
        wanted_workers(("c",), ["a", "b"], ["c"])
    with pytest.raises(NothingInCode, match=r"none has recorded jobs. Recorded are those of: c") as nothing:
        wanted_workers((), ["a"], ["c"], {"c": 5})
    assert (nothing.value.left_out, nothing.value.recorded) == ({"c": 5}, ["c"])
