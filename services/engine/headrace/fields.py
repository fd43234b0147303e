"""What the fields of records and of tools' arguments may be: times, names, ids. Each rule stands here, and nowhere else."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, PlainSerializer, StringConstraints, WithJsonSchema
from pydantic_core import CoreSchema, core_schema

from headrace.core.timestamps import EARLIEST, TIMESTAMP_PATTERN, TOO_LATE, format_timestamp, to_milliseconds
from headrace.core.topics import WORKER_NAME_PATTERN
from headrace.errors import LONGEST_WAIT_SECONDS

LONGEST_IDENTITY: Final = 200
LONGEST_JOB_ID: Final = 100


_UNPRINTED: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def is_plain(text: str) -> bool:
    """Whether `check_plain` lets the text through."""
    return _UNPRINTED.search(text) is None


def check_plain(text: str) -> str:
    """The text, if it has none of the characters that are none: control characters, of which NUL is one, and halves of surrogate
    pairs. In a name they show nothing, and end lines, keys or texts elsewhere.

    Raises:
        ValueError: it has one.
    """
    if _UNPRINTED.search(text):
        raise ValueError("it has control characters: leave them out")
    return text


class _WrittenWithZone:
    """pydantic's own type would take a number, and a text of digits, for a time; of these nobody can say what they count."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        # Checked without a line of Python: an engine asks this for every job.
        read = core_schema.datetime_schema(tz_constraint="aware", ge=EARLIEST, lt=TOO_LATE)
        text = core_schema.chain_schema([core_schema.str_schema(pattern=TIMESTAMP_PATTERN, strict=True), read])
        moment = core_schema.datetime_schema(tz_constraint="aware", strict=True, ge=EARLIEST, lt=TOO_LATE)
        return core_schema.custom_error_schema(
            core_schema.json_or_python_schema(text, core_schema.union_schema([text, moment], mode="left_to_right")),
            custom_error_type="timestamp",
            custom_error_message=(
                "Input should be a time as in RFC 3339, with its zone, such as 2026-01-31T09:15:00.123Z, "
                f"within the years {EARLIEST.year} to {TOO_LATE.year - 1}"
            ),
        )


Timestamp = Annotated[
    datetime,
    _WrittenWithZone,
    WithJsonSchema({"type": "string", "format": "date-time"}),
    PlainSerializer(lambda moment: format_timestamp(to_milliseconds(moment)), return_type=str, when_used="json"),
]
WorkerName = Annotated[str, StringConstraints(pattern=f"^{WORKER_NAME_PATTERN}$")]
Identity = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_IDENTITY)]
# What records hold of other writers' making is taken as it is: a job is not lost for its name.
PlainIdentity = Annotated[
    Identity, AfterValidator(check_plain), Field(json_schema_extra={"pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"})
]
"""An identity as it is taken from callers."""
# Without a slash: ids are keys of `job-state`, where `lease/...` and `checkpoint/...` are the engines' own.
JobId = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_JOB_ID, pattern=r"^[^/]+$")]
AttemptSeconds = Annotated[float, Field(gt=0, le=LONGEST_WAIT_SECONDS)]
LeaseName = Annotated[
    str,
    Field(
        description="Name of the lease, as in the key: the instance's id, from its second claim of the partition on with the "
        "number of the claim behind a dot, so that no two claims have one key."
    ),
]
