"""Which failures are followed by another attempt, and how long a job waits for it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.retry import FOR_THOSE_WHO_ASK, RetryPolicy, kind_names, qualified_name
from headrace.errors import ConfigurationError, GiveUp, JobTimeout, Retry


class RateLimited(Exception):
    """Somebody else's service is busy."""


class RateLimitedForLong(RateLimited):
    """It says so, and means it."""


RATE_LIMITED = f"{__name__}.RateLimited"

policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 50),
    initial=st.floats(0, 1_000),
    factor=st.floats(1, 1e6),
    maximum=st.floats(0, 10_000),
    jitter=st.floats(0, 1),
)
chances = st.floats(0, 1, exclude_max=True)


def test_waits_grow_by_the_factor_up_to_the_maximum() -> None:
    policy = RetryPolicy(max_attempts=10, initial=2, factor=3, maximum=100, jitter=0)
    assert [policy.wait(failures, 0.9) for failures in range(1, 7)] == [2, 6, 18, 54, 100, 100]


def test_jitter_is_the_share_of_a_wait_that_is_left_to_chance() -> None:
    policy = RetryPolicy(initial=10, jitter=0.2)
    assert [policy.wait(1, chance) for chance in (0, 0.5)] == [10, 9]
    assert policy.wait(1, 0.999_999) == pytest.approx(8, abs=0.001)


@given(policies, st.integers(1, 100_000), chances, chances)
def test_a_wait_is_never_negative_nor_over_the_maximum(policy: RetryPolicy, failures: int, chance: float, other: float) -> None:
    wait = policy.wait(failures, chance)
    longest = min(policy.initial, policy.maximum) if failures == 1 else policy.maximum
    assert 0 <= wait <= longest
    # What is left to chance is a share of the whole, so no wait is shorter than the one before it had to be.
    assert policy.wait(failures + 1, other) >= wait * (1 - policy.jitter) * (1 - 1e-9)


@given(policies, chances)
def test_a_job_that_always_fails_ends_after_as_many_attempts_as_the_policy_has(policy: RetryPolicy, chance: float) -> None:
    for kind in (ValueError("no"), Retry(), Retry(after=3)):
        waits = [policy.next_wait(kind, failures, chance) for failures in range(1, 60)]
        assert None not in waits[: policy.max_attempts - 1]
        assert set(waits[policy.max_attempts - 1 :]) == {None}


def test_a_class_stands_for_its_subclasses_and_a_name_does_too() -> None:
    for kind in (RateLimited, RATE_LIMITED):
        policy = RetryPolicy(initial=1, jitter=0, retry_on=(kind,))
        assert policy.next_wait(RateLimited(), 1, 0) == 1
        assert policy.next_wait(RateLimitedForLong(), 1, 0) == 1
        assert policy.next_wait(ValueError(), 1, 0) is None


def test_what_is_given_up_on_goes_before_what_is_tried_again() -> None:
    policy = RetryPolicy(retry_on=(RateLimited,), give_up_on=("KeyError", RateLimitedForLong))
    assert policy.next_wait(RateLimited(), 1, 0) is not None
    assert policy.next_wait(RateLimitedForLong(), 1, 0) is None
    assert RetryPolicy(give_up_on=("LookupError",)).next_wait(KeyError(), 1, 0) is None


def test_by_default_every_exception_is_tried_again_and_no_other_end() -> None:
    class Ending(BaseException): ...

    assert RetryPolicy().next_wait(JobTimeout(3), 1, 0) == 1
    assert RetryPolicy().next_wait(Ending(), 1, 0) is None
    assert RetryPolicy(retry_on=(TimeoutError,)).next_wait(JobTimeout(3), 1, 0) == 1


def test_a_worker_can_say_when_and_that_it_gives_up() -> None:
    policy = RetryPolicy(max_attempts=3, initial=5, jitter=0, retry_on=(), give_up_on=(Exception,))
    assert policy.next_wait(Retry(after=0.25), 1, 0) == 0.25
    assert policy.next_wait(Retry(after=0), 1, 0) == 0
    assert policy.next_wait(Retry("busy"), 1, 0) == 5
    assert RetryPolicy(retry_on=(GiveUp,)).next_wait(GiveUp(), 1, 0) is None


def test_without_a_policy_only_those_who_ask_get_another_attempt() -> None:
    assert FOR_THOSE_WHO_ASK.next_wait(ValueError(), 1, 0) is None
    waits = [FOR_THOSE_WHO_ASK.next_wait(Retry(after=7), failures, 0) for failures in (1, 4, 5)]
    assert waits == [7, 7, None]


@pytest.mark.parametrize("after", [-1, float("nan"), float("inf"), 366 * 86_400])
def test_a_wait_that_a_worker_asks_for_is_some_time_within_a_year(after: float) -> None:
    with pytest.raises(ValueError, match="from 0 to a year"):
        Retry(after=after)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_attempts", value) for value in (0, 2.5, True, 10_001)),
        *(("initial", value) for value in (-1, float("nan"), "1", 1e9)),
        *(("factor", value) for value in (0.5, float("inf"))),
        *(("maximum", value) for value in (-1, float("inf"))),
        *(("jitter", value) for value in (-0.1, 1.1, None)),
        *(("retry_on", value) for value in ((int,), (ValueError(),), 7)),
        ("give_up_on", [None]),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"RetryPolicy\.{name} "):
        RetryPolicy(**{name: value})


def test_one_class_and_a_list_are_taken_as_they_are_meant() -> None:
    given: Any = RateLimited
    assert RetryPolicy(retry_on=given).retry_on == (RateLimited,)
    given = ["KeyError", RateLimited]
    assert kind_names(RetryPolicy(retry_on=given).retry_on) == ["KeyError", RATE_LIMITED]
    given = "KeyError"
    assert RetryPolicy(give_up_on=given).give_up_on == ("KeyError",)


def test_the_name_of_a_class_is_that_under_which_a_failure_is_written_down() -> None:
    assert qualified_name(KeyError) == "KeyError"
    assert qualified_name(JobTimeout) == "headrace.errors.JobTimeout"
