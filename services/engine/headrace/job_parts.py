"""Parts of a job on the wire: its attempts and why they failed, how far it is, how often it is tried."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints

from headrace.core.retry import MOST_ATTEMPTS, RetryPolicy, kind_names
from headrace.errors import LONGEST_WAIT_SECONDS
from headrace.fields import Timestamp
from headrace.wire import WireModel

_USUAL: Final = RetryPolicy()

ErrorName = Annotated[str, StringConstraints(min_length=1, max_length=500)]


class JobError(WireModel):
    """Why an attempt failed."""

    type: str
    message: str
    traceback: str | None = Field(None, description="At most 16 KB; its middle is left out where it is longer.")


class Source(WireModel):
    """Where a job's record stands in the log."""

    topic: str
    partition: int
    offset: int


class Attempt(WireModel):
    """One execution of a job, as its history keeps it."""

    attempt: int = Field(ge=1)
    epoch: int
    instance_id: str
    started_at: Timestamp
    finished_at: Timestamp | None = None
    status: Literal["running", "completed", "failed", "interrupted", "cancelled"]
    error: JobError | None = None


class JobProgress(WireModel):
    """How far an attempt is, as it says itself."""

    fraction: float = Field(ge=0, le=1, description="The share of the work that is done.")
    text: str | None = None
    at: Timestamp


class RetryRules(WireModel):
    """How often a job is attempted before it fails, and how long it waits in between. An interrupted attempt does not count."""

    max_attempts: int = Field(_USUAL.max_attempts, ge=1, le=MOST_ATTEMPTS, description="Attempts that may fail.")
    initial: float = Field(_USUAL.initial, ge=0, le=LONGEST_WAIT_SECONDS, description="Seconds of the first wait.")
    factor: float = Field(
        _USUAL.factor, ge=1, allow_inf_nan=False, description="How many times longer each further wait is than the one before it."
    )
    maximum: float = Field(_USUAL.maximum, ge=0, le=LONGEST_WAIT_SECONDS, description="Seconds that no wait exceeds.")
    jitter: float = Field(_USUAL.jitter, ge=0, le=1, description="The share of each wait that is left to chance.")
    retry_on: list[ErrorName] = Field(
        default_factory=lambda: kind_names(_USUAL.retry_on),
        description="Names of the exceptions that are worth another attempt, as `error.type` has them, and of their bases.",
    )
    give_up_on: list[ErrorName] = Field(default_factory=list, description="Names of those that are not, whatever `retryOn` says.")

    @classmethod
    def of(cls, policy: RetryPolicy) -> Self:
        """A policy as it is written down; exceptions by their names."""
        return cls(
            max_attempts=policy.max_attempts,
            initial=policy.initial,
            factor=policy.factor,
            maximum=policy.maximum,
            jitter=policy.jitter,
            retry_on=kind_names(policy.retry_on),
            give_up_on=kind_names(policy.give_up_on),
        )

    def policy(self) -> RetryPolicy:
        """The policy that is written down here."""
        return RetryPolicy(
            max_attempts=self.max_attempts,
            initial=self.initial,
            factor=self.factor,
            maximum=self.maximum,
            jitter=self.jitter,
            retry_on=tuple(self.retry_on),
            give_up_on=tuple(self.give_up_on),
        )
