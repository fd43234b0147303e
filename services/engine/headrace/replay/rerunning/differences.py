"""What is told of a replay: what differs from what was recorded, and where; and jobs with other arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson
from pydantic import ValidationError

from headrace.codec import describe_problems, encode_foreign
from headrace.core.comparison import Outcome, is_same_json
from headrace.errors import ConfigurationError
from headrace.models import JobRecord
from headrace.replay.history import RecordedJob
from headrace.replay.rerunning.rerun import Rerun

MISSING: Final[Any] = object()
"""What stands where there is nothing, and None would be JSON's null."""

_CHANGEABLE: Final = ("args", "ctx")


@dataclass(frozen=True, slots=True)
class Difference:
    """A place where two JSON values differ.

    Attributes:
        path: names and indices with points between; empty for the values themselves.
        recorded, replayed: what stands there; `MISSING` where there is nothing.
    """

    path: str
    recorded: Any
    replayed: Any


def differences(recorded: Any, replayed: Any, path: str = "") -> Iterator[Difference]:
    """The innermost places where two JSON values differ, in the order of the first."""
    pending = [(path, recorded, replayed)]
    while pending:
        path, recorded, replayed = pending.pop()
        inside: list[tuple[str, Any, Any]] = []
        if isinstance(recorded, dict) and isinstance(replayed, dict):
            names = (*recorded, *(name for name in replayed if name not in recorded))
            inside = [(_join(path, name), recorded.get(name, MISSING), replayed.get(name, MISSING)) for name in names]
        elif isinstance(recorded, list) and isinstance(replayed, list):
            numbers = range(max(len(recorded), len(replayed)))
            inside = [(_join(path, number), _at(recorded, number), _at(replayed, number)) for number in numbers]
        elif recorded is MISSING or replayed is MISSING or not is_same_json(recorded, replayed):
            yield Difference(path, recorded, replayed)
        pending += reversed(inside)


def _at(values: Sequence[Any], number: int) -> Any:
    return values[number] if number < len(values) else MISSING


def _join(path: str, name: str | int) -> str:
    return f"{path}.{name}" if path else str(name)


def with_changes(job: RecordedJob, changes: Mapping[str, Any]) -> RecordedJob:
    """The job with other arguments, or another context: its id and all else are as they were.

    Args:
        changes: JSON values by their paths, such as `args.pages.0`. What there is not is added, at the end of a list by its
            length.

    Raises:
        ConfigurationError: a path does not begin with `args` or `ctx`, or leads through what has nothing inside; or what comes of
            it is no job that could ever be accepted.
    """
    record = {**job.record, **{name: _copy(job.record.get(name) or {}) for name in _CHANGEABLE}}
    for path, value in changes.items():
        names = path.split(".")
        if len(names) < 2 or names[0] not in _CHANGEABLE or not all(names):
            raise ConfigurationError(f"{path!r} is no path of what can be changed: name it as args.x, args.x.0.y, or ctx.x.")
        _set(record, names, value, path)
    if changes:
        _check(record, changes)
    return replace(job, record=record)


def _copy(value: Any) -> Any:
    """As `deepcopy`, for JSON that may be nested deeper than Python's own calls."""
    return orjson.loads(encode_foreign(value))


def _check(record: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    try:
        JobRecord.model_validate(record)
    except ValidationError as error:
        raise ConfigurationError(f"With another {', '.join(changes)} it is no valid job: {describe_problems(error)}") from None


def _set(inside: Any, names: Sequence[str], value: Any, path: str) -> None:
    for name in names[:-1]:
        inside = inside.setdefault(name, {}) if isinstance(inside, dict) else inside[_index(inside, name, path, 0)]
    if isinstance(inside, dict):
        inside[names[-1]] = value
        return
    index = _index(inside, names[-1], path, 1)
    inside[index : index + 1] = [value]


def _index(inside: Any, name: str, path: str, beyond: int) -> int:
    if not isinstance(inside, list) or not name.isdecimal() or int(name) >= len(inside) + beyond:
        raise ConfigurationError(f"{path!r} leads nowhere: there is no {name!r} to be set in {type(inside).__name__} there.")
    return int(name)


def rerun_as_json(rerun: Rerun) -> dict[str, Any]:
    """All that is known of a replay, as JSON has it."""
    return {
        "jobId": rerun.job.id,
        "workerName": rerun.job.record["workerName"],
        "attempt": rerun.attempt,
        "verdict": rerun.comparison.verdict.value,
        "slower": rerun.comparison.slower,
        **({"reason": rerun.comparison.reason} if rerun.comparison.reason else {}),
        "recorded": None if rerun.recorded is None else _outcome(rerun.recorded, None),
        "replayed": _outcome(rerun.replayed, rerun.error),
        "effects": rerun.effects.to_json(),
    }


def _outcome(outcome: Outcome, error: Mapping[str, str] | None) -> dict[str, Any]:
    told = None if error is None else dict(error)
    if told is None and outcome.error_type is not None:
        told = {"type": outcome.error_type, "message": outcome.error_message or ""}
    return {"status": outcome.status.value, "result": outcome.result, "error": told, "seconds": outcome.seconds}
