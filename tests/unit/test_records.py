"""What goes over the wire comes back as it was, and what this version does not know lives on."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from headrace.codec import decode, decode_object, encode, plain_validator
from headrace.core import snapshots
from headrace.errors import RecordUndecodable
from headrace.models import RECORDS, SCHEMA_VERSION, Job, JobRecord, WireModel

AT = "2026-01-31T09:15:00.123Z"
JOB: dict[str, Any] = {"id": "j", "workerName": "w", "createdAt": AT, "args": {"a": [1, None]}}
CONVERSATION: dict[str, Any] = {"userId": "u", "conversationId": "c", "id": "e", "at": AT}
EXAMPLES: dict[str, dict[str, Any]] = {
    "JobRecord": JOB,
    "Job": {**JOB, "status": "running", "updatedAt": AT},
    "ClaimRecord": {"workerName": "w", "partition": 1, "instanceId": "i", "previous": -1},
    "DeadLetterHeaders": {
        "headrace-reason": "undecodable",
        "headrace-message": "m",
        "headrace-topic": "t",
        "headrace-partition": "1",
        "headrace-offset": "2",
        "headrace-instance-id": "i",
    },
    "WorkerDefinition": {"name": "w", "description": "d", "category": "c"},
    "InstanceRecord": {"instanceId": "i", "workers": ["w"], "host": "h", "processId": 1, "startedAt": AT, "seenAt": AT},
    "MemoryEntry": {**CONVERSATION, "role": "user", "content": "x"},
    "MemoryCompaction": {**CONVERSATION, "jobId": "j", "baseVersion": -1, "supersedes": ["e"], "summary": "s"},
}


@pytest.mark.parametrize("model", RECORDS, ids=lambda model: model.__name__)
def test_every_record_comes_back_with_fields_that_this_version_does_not_know(model: type[WireModel]) -> None:
    sent = {**EXAMPLES[model.__name__], "fromTheFuture": {"kept": [1, 2]}, "emptyFromTheFuture": None}
    back = decode_object(encode(model.model_validate(sent)))
    assert {name: back[name] for name in sent} == sent
    version = back["headrace-schema-version"] if model.__name__ == "DeadLetterHeaders" else back["schemaVersion"]
    assert int(version) == SCHEMA_VERSION
    assert decode(model, encode(model.model_validate(back))) == model.model_validate(sent)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": ""}, "id"),
        ({"id": None}, "id"),
        ({"workerName": "no/slash"}, "workerName"),
        ({"createdAt": "yesterday"}, "createdAt"),
        ({"createdAt": "2026-01-31T09:15:00"}, "createdAt"),
        ({"args": None}, "args"),
        ({"args": [1]}, "args"),
        ({"ctx": {"userId": "u" * 201}}, "ctx.userId"),
        ({"schemaVersion": SCHEMA_VERSION + 1}, "schemaVersion"),
        ({"orderingKey": 7}, "orderingKey"),
    ],
)
def test_the_engine_refuses_what_the_model_refuses(change: dict[str, Any], field: str) -> None:
    with pytest.raises(RecordUndecodable, match=field):
        decode(JobRecord, orjson.dumps({**JOB, **change}))
    with pytest.raises(ValueError, match=field):
        plain_validator(JobRecord)({**JOB, **change})


def test_the_engine_takes_what_the_model_takes() -> None:
    plain_validator(JobRecord)({**JOB, "fromTheFuture": 1, "ctx": {"own": True}, "orderingKey": None})


def test_a_snapshot_has_what_the_job_record_had() -> None:
    record = {**JOB, "schemaVersion": 1, "fromTheFuture": None, "ctx": {"own": {"deep": None}}}
    queued = snapshots.queued(record, {"topic": "t", "partition": 0, "offset": 0})
    completed = snapshots.completed(snapshots.running(queued, snapshots.Writer("i", 1), AT), None, AT)
    assert {name: completed[name] for name in record} == record
    assert Job.model_validate(completed).args == JOB["args"]
