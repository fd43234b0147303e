"""Errors that replays alone raise, and who looks at their sandboxes, beside those of `headrace.errors`.

HeadraceError
├── AttemptUnknown                  a job has no attempt of that number, or nothing is left of it
├── SandboxLost                     a replay's sandbox was removed while it ran
├── SandboxLeft                     a replay's sandbox could not be removed
├── ThreadsExhausted                a replay can run no plain function any more
├── JobNotReplayable                a job cannot be run again, since what its sender wrote is none
├── RecordedError                   a replay meets again what a job's question to the outside raised
└── ConfigurationError
    ├── SandboxInUse                a replay's sandbox was to be made where something is already
    ├── SandboxUnknown              there is no sandbox of the name of the namespace that was to be looked at
    └── NothingInCode               of the workers of today's code nothing was ever recorded
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from headrace.errors import ConfigurationError, HeadraceError


class SandboxLost(HeadraceError):
    """The sandbox of a replay was removed by others while the replay ran."""

    code = "sandbox_lost"


class AttemptUnknown(HeadraceError):
    """A job has no attempt of the number that was asked for, or nothing is left of it; the message names those that there are."""

    code = "attempt_unknown"


class SandboxLeft(HeadraceError):
    """Not all of a replay's sandbox could be removed; the message says what is left, and what to do."""

    code = "sandbox_left"


class ThreadsExhausted(HeadraceError):
    """A replay can run no plain function any more: the system gives it no further thread, as it may where too many functions of
    earlier jobs go on after their time. It says nothing of the job at which that was found out.
    """

    code = "threads_exhausted"


class JobNotReplayable(HeadraceError):
    """A job cannot be run again, since what its sender wrote is none; the message says what is wrong with it."""

    code = "job_not_replayable"


class RecordedError(HeadraceError):
    """What a job asked outside raised an exception then, whose class is not loaded now: this stands for it.

    Attributes:
        type: the name of that class.
        message: its text.
    """

    code = "recorded_error"

    def __init__(self, type: str, message: str) -> None:
        super().__init__(message)
        self.type = type
        self.message = message


class SandboxInUse(ConfigurationError):
    """A replay's sandbox was to have the name of a namespace in which something is already; nothing was changed."""

    code = "sandbox_in_use"


class SandboxUnknown(ConfigurationError):
    """What was to be looked at is named like a replay's sandbox, and there is none of that name; nothing was made."""

    code = "sandbox_unknown"


class NothingInCode(ConfigurationError):
    """Of the workers of today's code nothing was ever recorded; the message names those that have recorded jobs.

    Attributes:
        left_out: how many jobs of these are in the span, by worker.
        recorded: the names of these.
    """

    def __init__(self, message: str, left_out: Mapping[str, int], recorded: Collection[str]) -> None:
        super().__init__(message)
        self.left_out = left_out
        self.recorded = recorded
