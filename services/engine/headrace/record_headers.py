"""The headers of records whose values are not headrace's own: dead letters, and what jobs got from outside."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, PlainSerializer, WithJsonSchema

from headrace.fields import Identity, WorkerName
from headrace.wire import DEFAULT_TENANT, SCHEMA_VERSION, WireModel

NumberText = Annotated[
    int, PlainSerializer(str, return_type=str), WithJsonSchema({"type": "string", "pattern": "^[0-9]+$"}, mode="validation")
]


class DeadLetterHeaders(WireModel):
    """The headers of a record of `dead-letters`, all of them text. The record's key and value are the original bytes.

    Headers that the original record had stand before them, unchanged: the first 64 KB of them.
    """

    model_config = ConfigDict(alias_generator=lambda name: f"headrace-{name.replace('_', '-')}")

    schema_version: NumberText = SCHEMA_VERSION
    reason: Literal["undecodable", "worker_unknown", "arguments_invalid", "poison", "idempotency_conflict", "tool_call_invalid"]
    message: str
    error_type: str | None = Field(None, description="The class of what was raised.")
    attempt: NumberText = Field(0, description="Number of the newest attempt; 0 when none was made.")
    worker_name: str | None = None
    job_id: str | None = None
    topic: str
    partition: NumberText
    offset: NumberText
    instance_id: str


class RecordingHeaders(WireModel):
    """The headers of a record of `recordings`, all of them text: an attempt of a job got something from outside.

    The record's key is `<job>/<attempt>/<name>/<number>`, each part percent-encoded; its value is the JSON of what it got.
    Of what was raised in place of that the key has a further number behind, and the value is `type`, `message` and `args`.
    """

    model_config = ConfigDict(alias_generator=lambda name: f"headrace-{name.replace('_', '-')}")

    schema_version: NumberText = SCHEMA_VERSION
    tenant: Identity = DEFAULT_TENANT
    worker_name: WorkerName
    source: str | None = Field(
        None,
        description="Where the record stands of the job that recorded it, as `<worker>/<partition>/<offset>`: an id may be"
        " another job's later.",
    )
