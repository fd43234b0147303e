"""Whether a failed attempt is followed by another, and when."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

from headrace.errors import LONGEST_WAIT_SECONDS, ConfigurationError, GiveUp, Retry

MOST_ATTEMPTS: Final = 10_000

NAMES_ATTRIBUTE: Final = "__headrace_kinds__"
"""Of an exception that was raised in another process: the names of its classes there, which may not be known here."""

ErrorKind = type[BaseException] | str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often a job is attempted before it fails, and how long it waits in between.

    Attempts that were interrupted (a shutdown, another engine, a broker that was away) have not failed, and do not count.

    Attributes:
        max_attempts: the attempt whose failure is the job's, counted among those that failed.
        initial: seconds from the first failure to the next attempt.
        factor: how many times longer each further wait is than the one before it.
        maximum: seconds that no wait exceeds.
        jitter: the share of each wait that is left to chance, from 0 to 1, so that jobs which failed together do not come back
            together: a wait of 10 s with 0.2 takes between 8 and 10 s.
        retry_on: the exceptions that are worth another attempt: classes, which stand for their subclasses too, or their names as
            `error.type` of a failed job has them.
        give_up_on: those that are not, whatever `retry_on` says.

    Raises:
        ConfigurationError: a value is out of its range; the message names it.
    """

    max_attempts: int = 5
    initial: float = 1.0
    factor: float = 2.0
    maximum: float = 600.0
    jitter: float = 0.2
    retry_on: tuple[ErrorKind, ...] = (Exception,)
    give_up_on: tuple[ErrorKind, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.max_attempts, bool) or not isinstance(self.max_attempts, int):
            raise ConfigurationError(f"RetryPolicy.max_attempts is {self.max_attempts!r}, and must be a whole number.")
        _check("max_attempts", self.max_attempts, 1, MOST_ATTEMPTS)
        _check("initial", self.initial, 0, LONGEST_WAIT_SECONDS)
        _check("factor", self.factor, 1, math.inf)
        _check("maximum", self.maximum, 0, LONGEST_WAIT_SECONDS)
        _check("jitter", self.jitter, 0, 1)
        for name in ("retry_on", "give_up_on"):
            # A list, or one class alone, is what anybody would try first.
            object.__setattr__(self, name, _kinds(name, getattr(self, name)))

    def next_wait(self, error: BaseException, failures: int, chance: float) -> float | None:
        """Seconds from a failure to the next attempt; None when the job has failed for good.

        Args:
            error: what the attempt ended by.
            failures: how many attempts of the job have failed, this one included.
            chance: any number from 0 up to, not including, 1.
        """
        if failures >= self.max_attempts or isinstance(error, GiveUp):
            return None
        if isinstance(error, Retry):
            return self.wait(failures, chance) if error.after is None else error.after
        if _is_among(error, self.give_up_on) or not _is_among(error, self.retry_on):
            return None
        return self.wait(failures, chance)

    def wait(self, failures: int, chance: float) -> float:
        """Seconds from the failure of this number, from 1, to the next attempt."""
        try:
            whole = min(self.initial * float(self.factor) ** (failures - 1), self.maximum)
        except OverflowError:
            whole = self.maximum if self.initial else 0.0
        return whole * (1 - self.jitter * chance)


def qualified_name(kind: type[BaseException]) -> str:
    """The name of an exception's class: with its module, unless it is one of Python's own."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def attribute_of(error: BaseException, name: str) -> Any:
    """An attribute that was set of an exception, or None. Its class is not asked, whatever that does with other names."""
    try:
        return object.__getattribute__(error, name)
    except AttributeError:
        return None


def kind_names(kinds: Iterable[ErrorKind]) -> list[str]:
    """The names of exceptions, by which a policy is written down."""
    return [kind if isinstance(kind, str) else qualified_name(kind) for kind in kinds]


def _is_among(error: BaseException, kinds: Collection[ErrorKind]) -> bool:
    if any(isinstance(kind, type) and isinstance(error, kind) for kind in kinds):
        return True
    if (told := attribute_of(error, NAMES_ATTRIBUTE)) is not None:
        return not set(kind_names(kinds)).isdisjoint(told)
    return any(qualified_name(kind) in kinds for kind in type(error).__mro__ if issubclass(kind, BaseException))


def _kinds(name: str, given: object) -> tuple[ErrorKind, ...]:
    kinds = tuple(given) if isinstance(given, Collection) and not isinstance(given, str) else (given,)
    for kind in kinds:
        if not isinstance(kind, str) and not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise ConfigurationError(f"RetryPolicy.{name} has {kind!r}: name exceptions, by their class or by its name.")
    return kinds


def _check(name: str, value: object, least: float, most: float) -> None:
    if not isinstance(value, int | float) or not least <= value <= most or math.isinf(value):
        bounds = f"at least {least:g}" if math.isinf(most) else f"from {least:g} to {most:g}"
        raise ConfigurationError(f"RetryPolicy.{name} is {value!r}, and must be a number {bounds}.")


# A worker that raises `Retry` means it, also when it has no policy that would say how often.
FOR_THOSE_WHO_ASK: Final = RetryPolicy(retry_on=())
"""What holds for a job without a policy: no exception is worth another attempt but `Retry`, within the usual bounds."""
