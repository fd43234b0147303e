"""What goes over the wire comes back as it was, and what this version does not know lives on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from headrace.codec import decode, decode_object, encode, is_common_job_record, plain_validator
from headrace.core import snapshots
from headrace.core.retry import RetryPolicy
from headrace.core.timestamps import parse_timestamp, to_milliseconds
from headrace.errors import RecordUndecodable
from headrace.models import RECORDS, SCHEMA_VERSION, Job, JobRecord, RetryRules, WireModel

AT = "2026-01-31T09:15:00.123Z"
JOB: dict[str, Any] = {"id": "j", "workerName": "w", "createdAt": AT, "args": {"a": [1, None]}}
CONVERSATION: dict[str, Any] = {"userId": "u", "conversationId": "c", "id": "e", "at": AT}
EXAMPLES: dict[str, dict[str, Any]] = {
    "JobRecord": JOB,
    "Job": {**JOB, "status": "running", "updatedAt": AT},
    "ClaimRecord": {"workerName": "w", "partition": 1, "instanceId": "i", "previous": -1},
    "RenewalRecord": {"workerName": "w", "partition": 1, "instanceId": "i", "epoch": 5, "previous": 7, "termSeconds": 25.0},
    "ReleaseRecord": {"workerName": "w", "partition": 1, "instanceId": "i", "epoch": 5, "reason": "stopped"},
    "LeaseRepeat": {
        **{"workerName": "w", "partition": 1, "instanceId": "i", "epoch": 5, "lastLease": 9, "previous": 5, "asOf": 12},
        **{"heldAt": 1_700_000_000_000, "termSeconds": 25.0, "released": True, "died": True},
    },
    "CheckpointRecord": {
        **{"workerName": "w", "partition": 1, "instanceId": "i", "epoch": 5, "covers": 8, "watermark": 3},
        "ranges": [[4, 6]],
        "begun": [{"id": "j", "offset": 7, "state": {"status": "running"}}],
    },
    "ApiKey": {
        **{"id": "00ff" * 4, "name": "n", "subject": "s", "scopes": ["jobs:read"], "digest": "00ff" * 16, "createdAt": AT},
        **{"expiresAt": AT, "revokedAt": AT},
    },
    "AuditRecord": {"at": AT, "gateway": "g", "transport": "http", "outcome": "ok", "subject": "s", "jobId": "j"},
    "EndedKeyRecord": {"id": "j", "workerName": "w", "partition": 1, "offset": 7, "endedAt": AT, "argumentsDigest": "00ff"},
    "DeadLetterHeaders": {
        "headrace-reason": "undecodable",
        "headrace-message": "m",
        "headrace-error-type": "ValueError",
        "headrace-attempt": "3",
        "headrace-topic": "t",
        "headrace-partition": "1",
        "headrace-offset": "2",
        "headrace-instance-id": "i",
    },
    "RecordingHeaders": {"headrace-tenant": "t", "headrace-worker-name": "w"},
    "SandboxMarker": {
        **{"sandbox": "n.replay-1", "namespace": "n", "host": "h", "processId": 1, "startedAt": AT},
        "topics": ["n.replay-1.jobs.w"],
        "groups": [],
    },
    "WorkerDefinition": {"name": "w", "description": "d", "category": "c"},
    "InstanceRecord": {"instanceId": "i", "workers": ["w"], "host": "h", "processId": 1, "startedAt": AT, "seenAt": AT},
    "CancelRequest": {
        **{"tenant": "t", "jobId": "j", "workerName": "w", "requestedAt": AT},
        "source": {"topic": "t", "partition": 1, "offset": 2},
    },
    "PauseRequest": {"workerName": "w", "requestedAt": AT},
    "MemoryEntry": {**CONVERSATION, "role": "user", "content": "x"},
    "MemoryCompaction": {**CONVERSATION, "jobId": "j", "baseVersion": -1, "supersedes": ["e"], "summary": "s"},
}


@pytest.mark.parametrize("model", RECORDS, ids=lambda model: model.__name__)
def test_every_record_comes_back_with_fields_that_this_version_does_not_know(model: type[WireModel]) -> None:
    sent = {**EXAMPLES[model.__name__], "fromTheFuture": {"kept": [1, 2]}, "emptyFromTheFuture": None}
    back = decode_object(encode(model.model_validate(sent)))
    assert {name: back[name] for name in sent} == sent
    version = back["headrace-schema-version"] if model.__name__.endswith("Headers") else back["schemaVersion"]
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


NO_TIMES: list[Any] = [
    1_769_850_900,
    1_769_850_900.5,
    True,
    None,
    "1769850900",
    "2026-01-31",
    "2026-01-31T09:15Z",
    "2026-01-31T09:15:00",
    "2026-01-31 09:15:00Z",
    "2026-01-31 09:15:00.123Z",
    "2026-01-31T09:15:00.\u0661\u0662\u0663Z",
    "2026-01-31T09:15:00,123Z",
    "2026-W05-6T09:15:00Z",
    "2026-02-30T09:15:00Z",
    "2026-01-31T24:00:00Z",
    "2026-01-31T09:15:60Z",
    "2026-01-31T09:15:00+0100",
    "2026-01-31T09:15:00+00:60",
    "2026-01-31T09:15:00+24:00",
    "2026-01-31T09:15:00Z\n",
    "0001-01-01T00:00:00+01:00",
    "9999-12-31T23:59:59-01:00",
    # Of a year that has four digits, and not in UTC, in which times are written.
    "1000-01-01T00:00:00+23:59",
    "2999-12-31T23:59:59-00:01",
]


@pytest.mark.parametrize("value", NO_TIMES, ids=repr)
def test_what_is_no_time_is_none_for_the_engine_the_model_and_the_view(value: Any) -> None:
    for check in (JobRecord.model_validate, plain_validator(JobRecord)):
        with pytest.raises(ValueError, match="createdAt"):
            check({**JOB, "createdAt": value})
    with pytest.raises((ValueError, TypeError)):
        parse_timestamp(value)


@pytest.mark.parametrize(
    "value",
    [
        *("2026-01-31T09:15:00Z", "2026-01-31T09:15:00.1Z", "2026-01-31T09:15:00.123456789Z", "2026-01-31T10:15:00.123+01:00"),
        *("1000-01-02T00:00:00+23:59", "2999-12-30T23:59:59.999-23:59"),
        *("1000-01-01T00:00:00Z", "1000-01-01T23:59:00+23:59", "2999-12-31T23:59:59.999Z"),
    ],
)
def test_every_time_with_a_zone_is_the_same_for_the_engine_the_model_and_the_view(value: str) -> None:
    plain_validator(JobRecord)({**JOB, "createdAt": value})
    record = JobRecord.model_validate({**JOB, "createdAt": value})
    assert parse_timestamp(value) == to_milliseconds(record.created_at) == parse_timestamp(record.to_wire()["createdAt"])


@given(
    st.from_regex(r"[0-2][0-9]{3}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]([.][0-9]+)?(Z|[+-][0-2][0-9]:[0-9]{2})")
)
@example("1000-01-01T00:00:00-00:60")
@example("1000-01-01T00:00:00+00:01")
def test_no_time_is_one_for_the_engine_and_none_for_the_view(value: str) -> None:
    def outcome(check: Callable[[], Any]) -> str:
        try:
            check()
        except ValueError:
            return "refused"
        return "taken"

    assert outcome(lambda: parse_timestamp(value)) == outcome(lambda: plain_validator(JobRecord)({**JOB, "createdAt": value}))


def test_the_engine_takes_what_the_model_takes() -> None:
    plain_validator(JobRecord)({**JOB, "fromTheFuture": 1, "ctx": {"own": True}, "orderingKey": None})


COMMON: dict[str, Any] = {**JOB, "schemaVersion": SCHEMA_VERSION, "tenant": "default", "ctx": {"userId": "u"}}
# What fields are allowed to be, what they nearly are, and anything else.
FIELD_VALUES = st.one_of(
    st.sampled_from(["", "j", "w", "a/b", "x" * 100, "x" * 101, "\u00e4" * 200, "x" * 201, AT, *NO_TIMES]),
    st.sampled_from([None, True, 0, 1, 1.0, SCHEMA_VERSION + 1, "1", [], {}, {"userId": ""}, {"user_id": 1}, {"source": 7}]),
    st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda inner: st.dictionaries(st.text(max_size=3), inner)),
)
FIELD_NAMES = sorted(
    {field.alias or name for name, field in JobRecord.model_fields.items()} | snapshots.NOT_ACCEPTED | {"fromTheFuture"}
)
CONTEXT_NAMES = ["userId", "conversationId", "source", "user_id", "conversation_id", "own"]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"id": "x" * 100, "tenant": "x" * 200, "args": {}, "ctx": {}},
        {"ctx": {"userId": None, "conversationId": "c", "source": "s", "own": [1]}},
        {"orderingKey": "k", "idempotencyKey": None, "fromTheFuture": 1},
    ],
)
def test_the_records_that_clients_write_need_no_validator(change: dict[str, Any]) -> None:
    assert is_common_job_record({**COMMON, **change}, "w")


@given(
    st.dictionaries(st.sampled_from(FIELD_NAMES), FIELD_VALUES, max_size=3),
    st.dictionaries(st.sampled_from(CONTEXT_NAMES), FIELD_VALUES, max_size=2),
    st.sets(st.sampled_from(sorted(COMMON)), max_size=1),
)
def test_a_record_that_needs_no_validator_is_one_that_it_takes(
    change: dict[str, Any], context: dict[str, Any], missing: set[str]
) -> None:
    record = {**COMMON, "ctx": {"userId": "u", **context}, **change}
    record = {name: value for name, value in record.items() if name not in missing}
    if is_common_job_record(record, "w"):
        plain_validator(JobRecord)(record)
        JobRecord.model_validate({name: value for name, value in record.items() if name not in snapshots.NOT_ACCEPTED})


@pytest.mark.parametrize("name", FIELD_NAMES)
def test_a_field_that_is_wrong_is_for_the_validator(name: str) -> None:
    wrong: list[Any] = [7, "", [], "a/b", "x" * 201]
    for value in wrong:
        record = {**COMMON, name: value}
        if is_common_job_record(record, "w"):
            plain_validator(JobRecord)(record)


def test_a_record_of_another_worker_is_for_the_validator() -> None:
    assert not is_common_job_record({**COMMON, "workerName": "no/slash"}, "w")


def test_a_snapshot_has_what_the_job_record_had() -> None:
    record = {**JOB, "schemaVersion": 1, "fromTheFuture": None, "ctx": {"own": {"deep": None}}}
    queued = snapshots.queued(record, {"topic": "t", "partition": 0, "offset": 0})
    completed = snapshots.completed(snapshots.running(queued, snapshots.Writer("i", 1), AT), None, AT)
    assert {name: completed[name] for name in record} == record
    assert Job.model_validate(completed).args == JOB["args"]


def test_a_retry_policy_comes_back_from_the_wire_with_its_exceptions_by_name() -> None:
    policy = RetryPolicy(max_attempts=7, initial=0.5, factor=3, maximum=90, jitter=0, retry_on=(OSError,), give_up_on=("a.B",))
    wire = RetryRules.of(policy).to_wire()
    assert wire["maxAttempts"] == 7
    assert (wire["retryOn"], wire["giveUpOn"]) == (["OSError"], ["a.B"])
    read = RetryRules.model_validate(wire).policy()
    assert read == RetryPolicy(**{**dataclasses.asdict(policy), "retry_on": ("OSError",)})
    assert RetryRules.of(read).to_wire() == wire


def test_what_a_retry_policy_on_the_wire_leaves_out_is_as_in_python() -> None:
    assert RetryRules().policy() == RetryPolicy(retry_on=("Exception",))


@given(st.dictionaries(st.sampled_from(sorted(RetryRules.model_json_schema()["properties"])), FIELD_VALUES, max_size=3))
def test_a_retry_policy_that_the_wire_allows_is_one_in_python(rules: dict[str, Any]) -> None:
    try:
        read = RetryRules.model_validate(rules)
    except ValidationError:
        return
    read.policy()


@pytest.mark.parametrize(
    "wrong",
    [{"retry": {"maxAttempts": 0}}, {"retry": {"jitter": 2}}, {"retry": 3}, {"attemptTimeout": 0}, {"attemptTimeout": "x"}],
)
def test_a_record_with_a_wrong_policy_or_timeout_is_no_job(wrong: dict[str, Any]) -> None:
    assert not is_common_job_record({**COMMON, **wrong}, "w")
    with pytest.raises(ValidationError):
        plain_validator(JobRecord)({**COMMON, **wrong})
