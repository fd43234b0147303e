"""What a chaos run is judged by: made-up ticks and a made-up log, each with one thing that is wrong."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from chaos.ledger import SECOND, Accepted, Entry, Fault, Ledger, Poisoned, Signalled, Tick, TickKind, read_ledger
from chaos.verdict import KINDS, LogFacts, Minimums, Outcome, Queued, Verdict, judge

NOTHING = Minimums(0, 0, 0, 0, 0)
COMPLETED = Outcome("completed", {1: "completed"})
AGAIN = Outcome("completed", {1: "interrupted", 2: "completed"})


def ticks(
    job: str, *seconds: float, attempt: int = 1, token: tuple[int, int] = (0, 1), pid: int = 100, ends: bool = True
) -> list[Entry]:
    """An attempt that ticks at these times; the first is its begin and, if it ends, the last its end."""
    tick: TickKind = "tick"
    kinds: list[TickKind] = ["begin", *(tick for _ in seconds[1:])]
    if ends:
        kinds[-1] = "end"
    return [Tick(int(at * SECOND), kind, job, attempt, token, pid) for at, kind in zip(seconds, kinds, strict=True)]


def accepted(*jobs: str) -> list[Entry]:
    return [Accepted(0, job, "short", False) for job in jobs]


def log(*records: Queued, **outcomes: Outcome) -> LogFacts:
    return LogFacts(records, outcomes)


def queued(job: str, offset: int, *, key: str | None = None) -> Queued:
    return Queued(job, "keyed" if key else "short", 0, offset, key)


def verdict_of(entries: list[Entry], facts: LogFacts, minimums: Minimums = NOTHING) -> Verdict:
    return judge(entries, facts, minimums)


def test_a_run_in_which_all_went_well_passes() -> None:
    entries = [*accepted("a", "b"), *ticks("a", 1, 2, 3), *ticks("b", 1, 45)]
    verdict = verdict_of(entries, log(queued("a", 0), queued("b", 1), a=COMPLETED, b=COMPLETED))
    assert verdict.passed
    assert (verdict.accepted, verdict.ended, verdict.long_jobs, verdict.longest_stall) == (2, 2, 1, 42.0)
    assert verdict.statuses == {"completed": 2}
    assert json.loads(json.dumps(asdict(verdict)))["ended"] == 2


def test_a_job_that_failed_for_the_sake_of_another_breaks_a_promise_and_poison_does_not() -> None:
    failed = Outcome("failed", {1: "interrupted"})
    entries = [*accepted("a", "b"), *ticks("a", 1, 2, ends=False), Poisoned(2 * SECOND, "a", 100), *ticks("b", 1, 2, ends=False)]
    facts = replace(log(queued("a", 0), queued("b", 1), a=failed, b=failed), given_up=frozenset({"a"}))
    verdict = verdict_of(entries, facts)
    assert (verdict.failed, verdict.passed) == (["b"], False)
    assert verdict_of(entries, replace(facts, outcomes={"a": failed, "b": COMPLETED})).passed


@pytest.mark.parametrize(
    ("status", "given_up", "told"),
    [
        ("failed", {"a"}, []),
        ("failed", {"other"}, ["a: failed, without a dead letter"]),
        ("completed", {"a"}, ["a: completed, with a dead letter"]),
        ("completed", set(), ["a: completed, without a dead letter"]),
    ],
)
def test_a_poison_job_fails_and_is_a_dead_letter(status: str, given_up: set[str], told: list[str]) -> None:
    entries = [*accepted("a"), *ticks("a", 1, 2, ends=False), Poisoned(2 * SECOND, "a", 100)]
    facts = log(queued("a", 0), a=Outcome(status, {1: "interrupted"}))
    verdict = verdict_of(entries, replace(facts, given_up=frozenset(given_up)))
    assert (verdict.poison, verdict.poison_kept, verdict.passed) == (1, told, not told)


# Lost.


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (log(), "its record is not in the log"),
        (log(queued("a", 0)), "queued, 0 attempts"),
        (log(queued("a", 0), a=Outcome("running", {1: "running"})), "running, 1 attempts"),
    ],
)
def test_an_accepted_job_that_does_not_end_is_lost(facts: LogFacts, why: str) -> None:
    verdict = verdict_of(accepted("a"), facts)
    assert not verdict.passed
    assert verdict.lost == [f"a: {why}"]


def test_a_job_in_the_log_is_lost_too_if_it_does_not_end_whoever_knows_of_it() -> None:
    verdict = verdict_of([], log(queued("a", 0)))
    assert (len(verdict.lost), verdict.unconfirmed, verdict.passed) == (1, 1, False)


def test_a_duplicate_ends_with_the_first() -> None:
    verdict = verdict_of([*accepted("a", "a"), *ticks("a", 1, 2)], log(queued("a", 0), queued("a", 7), a=COMPLETED))
    assert (verdict.passed, verdict.accepted, verdict.duplicates) == (True, 1, 1)


# Overlaps.


def overlapping(last: float, *, thawed_at: float | None = None) -> Verdict:
    """An attempt whose last tick is at `last`, and a newer one that begins at 10."""
    entries = [
        *accepted("a"),
        *ticks("a", 1, 5, last, ends=False, pid=100),
        *ticks("a", 10, 11, 12, attempt=2, token=(5, 2), pid=200),
    ]
    if thawed_at is not None:
        entries += [Signalled(6 * SECOND, 100, "SIGSTOP"), Signalled(int(thawed_at * SECOND), 100, "SIGCONT")]
    return verdict_of(entries, log(queued("a", 0), a=AGAIN))


def test_an_older_attempt_that_ticks_after_a_newer_one_began_overlaps() -> None:
    verdict = overlapping(10.001)
    assert not verdict.passed
    assert len(verdict.overlaps) == 1
    assert "attempt 1 (0, 1) in process 100 ticked 1 times, up to 0.001 s, after attempt 2 (5, 2)" in verdict.overlaps[0]
    assert overlapping(9.999).passed


def test_ticks_right_after_a_thaw_count_apart() -> None:
    verdict = overlapping(30.4, thawed_at=30.0)
    assert (verdict.passed, verdict.after_thaw, verdict.overlaps) == (True, 1, [])
    late = overlapping(30.6, thawed_at=30.0)
    assert (late.passed, late.after_thaw, len(late.overlaps)) == (False, 0, 1)
    assert not overlapping(29.9, thawed_at=30.0).passed, "before it had thawed it cannot have ticked for that"


def test_the_thaw_of_another_process_excuses_nothing() -> None:
    entries = [*ticks("a", 1, 10.5, ends=False), *ticks("a", 10, 11, attempt=2, token=(5, 2), pid=200)]
    entries.append(Signalled(int(10.4 * SECOND), 200, "SIGCONT"))
    assert not verdict_of(entries, log(queued("a", 0), a=AGAIN)).passed


def test_an_older_claim_that_begins_late_overlaps() -> None:
    entries = [*ticks("a", 10, 13, attempt=2, token=(5, 2), pid=200), *ticks("a", 12, 14, attempt=1, token=(3, 1))]
    assert len(verdict_of(entries, log(queued("a", 0), a=AGAIN)).overlaps) == 1


def test_two_processes_with_one_token_overlap() -> None:
    entries = [*ticks("a", 1, 3, pid=100), *ticks("a", 2, 4, pid=200)]
    assert len(verdict_of(entries, log(queued("a", 0), a=COMPLETED)).overlaps) == 1


# Order, and what is over.


def ordered(second_begins: float, *, thawed_at: float | None = None) -> Verdict:
    entries = [*ticks("a", 1, 5), *ticks("b", second_begins, second_begins + 1, pid=200)]
    if thawed_at is not None:
        entries.append(Signalled(int(thawed_at * SECOND), 100, "SIGCONT"))
    return verdict_of(entries, log(queued("a", 0, key="k"), queued("b", 1, key="k"), a=COMPLETED, b=COMPLETED))


def test_jobs_of_one_key_follow_the_log() -> None:
    assert ordered(5.001).passed
    early = ordered(4.999)
    assert (early.passed, len(early.out_of_order)) == (False, 1)
    assert "began 0.001 s before a was over" in early.out_of_order[0]
    assert not ordered(0.1).passed
    assert ordered(4.999, thawed_at=4.9).passed, "the last words of a frozen process are counted elsewhere"


def test_other_keys_have_no_order() -> None:
    entries = [*ticks("a", 5, 6), *ticks("b", 1, 2)]
    facts = log(queued("a", 0, key="k"), queued("b", 1, key="l"), a=COMPLETED, b=COMPLETED)
    assert verdict_of(entries, facts).passed


def test_a_job_that_is_begun_again_after_its_end_fails_the_run() -> None:
    facts = replace(log(queued("a", 0), a=COMPLETED), begun_again=["a: completed, and then running"])
    assert not verdict_of(ticks("a", 1, 2), facts).passed


# Why something ran again.


@pytest.mark.parametrize(
    ("events", "attempts", "reason"),
    [
        ([Signalled(3 * SECOND, 100, "SIGKILL")], AGAIN, "its process was killed"),
        ([Signalled(3 * SECOND, 100, "SIGTERM")], AGAIN, "its process was stopped"),
        ([Signalled(3 * SECOND, 100, "SIGSTOP"), Signalled(4 * SECOND, 100, "SIGCONT")], AGAIN, "its process was frozen"),
        ([Poisoned(3 * SECOND, "p", 100)], AGAIN, "a poison job killed its process"),
        ([], Outcome("completed", {1: "failed"}), "it had failed, and was retried"),
        ([], AGAIN, "interrupted: a lost lease, a rebalance or a broker that was away"),
        # What happened to the process before does not explain it.
        ([Signalled(0, 100, "SIGSTOP")], AGAIN, "interrupted: a lost lease, a rebalance or a broker that was away"),
    ],
)
def test_what_ran_more_than_once_is_told_with_its_reason(events: list[Entry], attempts: Outcome, reason: str) -> None:
    entries = [*ticks("a", 1, 2, ends=False), *events, *ticks("a", 5, 6, attempt=2, token=(5, 2), pid=200)]
    verdict = verdict_of(entries, log(queued("a", 0), a=attempts))
    assert (verdict.executed_again, verdict.repeated) == (1, {reason: 1})
    assert verdict.passed


# Too little.


def faults(count: int, *, kinds: int = len(KINDS), seconds: float = 1.0) -> list[Entry]:
    return [Fault(number * SECOND, KINDS[number % kinds], seconds, "") for number in range(count)]


@pytest.mark.parametrize(
    ("minimums", "entries", "short"),
    [
        (Minimums(2, 0, 0, 0, 0), [], "1 jobs ended, and 2 are needed"),
        (Minimums(0, 1, 0, 0, 0), [], "0 jobs of more than 40 s, and 1 are needed"),
        (Minimums(0, 0, 15, 0, 0), faults(14), "14 faults, and 15 are needed"),
        (Minimums(0, 0, 15, 10, 0), faults(20, kinds=9), "9 kinds of faults, and 10 are needed"),
        (Minimums(0, 0, 0, 0, 3), faults(20, seconds=40.0), "0 freezes over 40 s, and 3 are needed"),
    ],
)
def test_a_run_in_which_too_little_happened_proves_nothing(minimums: Minimums, entries: list[Entry], short: str) -> None:
    verdict = verdict_of([*ticks("a", 1, 2), *entries], log(queued("a", 0), a=COMPLETED), minimums)
    assert verdict.shortfalls == [short]
    assert not verdict.passed


def test_only_freezes_count_as_freezes() -> None:
    done = [*ticks("a", 1, 2), *faults(20, seconds=41.0)]
    verdict = verdict_of(done, log(queued("a", 0), a=COMPLETED), Minimums(1, 0, 15, 10, 3))
    assert verdict.long_freezes == 6
    assert verdict.passed


def test_minimums_go_with_the_minutes() -> None:
    assert Minimums.of(5) == Minimums(10_000, 50, 15, 10, 3)
    assert Minimums.of(10) == Minimums(20_000, 100, 30, 10, 6)
    assert Minimums.of(1) == Minimums(2_000, 10, 3, 2, 1)


def test_what_is_noted_is_read_as_it_was(tmp_path: Path) -> None:
    entries: list[Entry] = [
        *ticks("a", 1, 2),
        *accepted("a"),
        Signalled(3, 100, "SIGKILL"),
        Fault(4, "kill engine", 0.5, "engine-1"),
        Poisoned(5, "p", 100),
    ]
    with Ledger(tmp_path / "ledger") as first, Ledger(tmp_path / "ledger") as second:
        for number, entry in enumerate(entries):
            (first, second)[number % 2].note(entry)
    assert list(read_ledger(tmp_path / "ledger")) == entries
    with (tmp_path / "ledger").open("a") as file:
        file.write('["Unknown"]\n')
    with pytest.raises(ValueError, match="nobody writes"):
        list(read_ledger(tmp_path / "ledger"))


def test_a_request_that_was_done_twice_breaks_a_promise() -> None:
    entries = [*accepted("a"), *ticks("a", 1, 2), *ticks("a", 3, 4, token=(0, 2))]
    facts = log(queued("a", 0), queued("a", 1), a=COMPLETED)
    assert verdict_of(entries, facts).passed, "an attempt may run again"
    assert not verdict_of(entries, replace(facts, done_twice=["a: completed at short 0/0, and completed at short 0/1"])).passed


def test_a_job_that_nobody_cancelled_must_not_be_cancelled() -> None:
    verdict = verdict_of([*accepted("a"), *ticks("a", 1, 2)], log(queued("a", 0), a=Outcome("cancelled", {1: "interrupted"})))
    assert (verdict.failed, verdict.passed) == (["a"], False)


def test_a_run_in_which_a_process_misbehaved_does_not_pass() -> None:
    entries, facts = [*accepted("a"), *ticks("a", 1, 2)], log(queued("a", 0), a=COMPLETED)
    verdict = judge(entries, facts, NOTHING, ["engine-4 ended by itself, with 2"])
    assert (verdict.misbehaved, verdict.passed) == (["engine-4 ended by itself, with 2"], False)
