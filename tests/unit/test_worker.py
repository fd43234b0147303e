"""What a worker says of itself is checked before it runs, and what a job says of its progress before it is written."""

from __future__ import annotations

from typing import Any

import pytest

from headrace import AbstractWorker, ConfigurationError, JobContext, RateLimit, RetryPolicy, worker
from headrace.job_context import JobServices
from support.jobs import a_job


class Plain(AbstractWorker[dict[str, Any]]):
    name = "plain"

    async def run(self, args: dict[str, Any], ctx: JobContext) -> None: ...


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("retry", 3), ("retry", RetryPolicy), ("timeout", 0), ("timeout", float("nan")), ("timeout", "5 s")],
        *[("rate_limit", 10), ("rate_limit", RateLimit), ("rate_limit", (10, 1))],
        *[("concurrency", value) for value in (0, -1, "3", 2.5, True)],
        *[("order_by", value) for value in ("key", b"key", (1,), None)],
    ],
)
def test_a_policy_timeout_or_limit_that_is_none_is_refused_when_the_worker_is_registered(name: str, value: Any) -> None:
    wrong = type("Wrong", (Plain,), {name: value})
    with pytest.raises(ConfigurationError, match=rf"Wrong\.{name} is "):
        wrong().definition()


def test_a_decorated_function_has_a_policy_a_timeout_and_a_limit_too() -> None:
    policy = RetryPolicy(max_attempts=2)

    @worker(retry=policy, timeout=3, rate_limit=RateLimit(5, 60))
    def count(args: dict[str, Any], ctx: JobContext) -> None: ...

    assert (count.retry, count.timeout, count.rate_limit) == (policy, 3, RateLimit(5, 60))
    assert count.definition().name == "count"


def test_the_decorator_may_stand_without_parentheses() -> None:
    @worker
    def count(args: dict[str, Any], ctx: JobContext) -> None:
        """Counts."""

    definition = count.definition()
    assert (definition.name, definition.description, definition.kind) == ("count", "Counts.", "count")
    options: Any = "count"
    with pytest.raises(ConfigurationError, match=r"worker\('count'\) decorates no function"):
        worker(options)


def test_what_is_wrong_with_a_decorated_function_is_told_by_the_name_of_the_function() -> None:
    wrong: Any = 3

    @worker(retry=wrong)
    def count(args: dict[str, Any], ctx: JobContext) -> None: ...

    with pytest.raises(ConfigurationError, match=r"^count\.retry is 3: give it a RetryPolicy"):
        count.definition()


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_progress_is_a_share_of_the_work(fraction: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        JobContext(a_job("j")).progress(fraction)


def test_progress_names_the_attempt_that_makes_it_and_goes_nowhere_without_an_engine() -> None:
    said: list[Any] = []
    job = a_job("j")
    services = JobServices(report=lambda *values: said.append(values))
    JobContext(job, attempt=2, services=services).progress(0.5, "half")
    JobContext(job).progress(1)
    assert said == [(job, 2, 0.5, "half")]
