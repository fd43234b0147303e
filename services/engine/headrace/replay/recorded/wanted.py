"""Which recorded jobs are wanted: their fields by the paths that the wire has for them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Final

from headrace.codec import encode_foreign
from headrace.core.status import JobStatus
from headrace.errors import ArgumentsInvalid
from headrace.models import Job, JobRecord
from headrace.replay.history import DAMAGED, RecordedJob

_SHORT: Final = {"userId": "ctx.userId", "conversationId": "ctx.conversationId"}
_NAMES: Final = sorted({*_SHORT, *(str(field.alias) for model in (Job, JobRecord) for field in model.model_fields.values())})
_NEVER_CHANGING: Final = frozenset(str(field.alias) for field in JobRecord.model_fields.values())
_STATUSES: Final = (*(status.value for status in JobStatus if status is not JobStatus.SCHEDULED), DAMAGED)
"""As recorded jobs can stand: what is scheduled is no job yet."""
_MISSING: Final = object()


def parse_fields(texts: list[str]) -> dict[str, str]:
    """The fields of `status=failed,userId=ada`, given once or several times.

    Raises:
        ArgumentsInvalid: it is none of that form, or no job has a field of that name, or none ever stands so.
    """
    fields: dict[str, str] = {}
    for each in (part for text in texts for part in text.split(",")):
        name, equals, value = each.partition("=")
        if not equals or not name.strip():
            raise ArgumentsInvalid(
                f"--where {each!r} is no field with its value: give it as status=failed or args.kind=digest; no value can have a"
                " comma."
            )
        fields[_known(name.strip())] = _possible(name.strip(), value.strip())
    return fields


def _known(path: str) -> str:
    """The path, if jobs can have what it begins with: a name that none has would let no job through, and nobody would notice."""
    first = path.partition(".")[0]
    if first in _NAMES:
        return path
    nearest = difflib.get_close_matches(first, _NAMES, 1)
    advice = f" Did you mean {nearest[0]}?" if nearest else ""
    raise ArgumentsInvalid(f"--where {path!r}: jobs have no field {first!r}.{advice} They have {', '.join(_NAMES)}.")


def _possible(path: str, value: str) -> str:
    """The value, if a field can have it, of those that have but a few."""
    if path != "status" or value in _STATUSES:
        return value
    nearest = difflib.get_close_matches(value, _STATUSES, 1)
    advice = f" Did you mean {nearest[0]}?" if nearest else ""
    raise ArgumentsInvalid(f"--where 'status={value}': no job has that status.{advice} There are {', '.join(_STATUSES)}.")


def full_path(path: str) -> str:
    """The path of a field on the wire, whose short form may have been given."""
    return _SHORT.get(path, path)


def matches(job: RecordedJob, fields: Mapping[str, str]) -> bool:
    """Whether the job has all of the fields, as it stands now."""
    return all(_text(_value(job, full_path(path))) == wanted for path, wanted in fields.items())


def _value(job: RecordedJob, path: str) -> Any:
    first, *rest = path.split(".")
    value = _MISSING
    if job.damaged:
        # What it was last is not known: only what never changes is.
        value = job.given(first, _MISSING) if first in _NEVER_CHANGING else DAMAGED if first == "status" else _MISSING
    elif job.snapshot is not None and first in job.snapshot:
        value = job.snapshot[first]
    elif first == "status":
        value = JobStatus.QUEUED
    else:
        value = job.given(first, _MISSING)
    for name in rest:
        value = value.get(name, _MISSING) if isinstance(value, Mapping) else _MISSING
    return value


def _text(value: Any) -> str | None:
    """A value as it is written after `=`: text as it is, anything else as JSON has it."""
    if value is _MISSING:
        return None
    return str(value) if isinstance(value, str) else encode_foreign(value).decode()
