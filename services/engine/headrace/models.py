"""The wire contract: every record in a topic, and every tool's arguments and answer.

camelCase JSON on the wire, snake_case in Python. Records carry `schemaVersion`, and keep fields that this version does not
know. Arguments of tools are closed: an unknown name there is a mistake that its sender should hear of.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

from headrace.core.status import JobStatus
from headrace.fields import AttemptSeconds, Identity, JobId, LeaseName, Timestamp, WorkerName
from headrace.job_parts import Attempt as Attempt
from headrace.job_parts import JobError as JobError
from headrace.job_parts import JobProgress as JobProgress
from headrace.job_parts import RetryRules as RetryRules
from headrace.job_parts import Source as Source
from headrace.record_headers import DeadLetterHeaders as DeadLetterHeaders
from headrace.record_headers import RecordingHeaders as RecordingHeaders
from headrace.sandbox_marker import SandboxMarker as SandboxMarker
from headrace.wire import DEFAULT_TENANT as DEFAULT_TENANT
from headrace.wire import SCHEMA_VERSION as SCHEMA_VERSION
from headrace.wire import ClosedModel as ClosedModel
from headrace.wire import SchemaVersion as SchemaVersion
from headrace.wire import WireModel as WireModel

PAYLOAD_LIMIT_BYTES: Final = 512 * 1024
"""The most that arguments and context, or a result, may take as JSON."""

# --- jobs -------------------------------------------------------------------------------------------------------------


class CallContext(WireModel):
    """Where a request comes from. Callers may add fields of their own."""

    user_id: Identity | None = None
    conversation_id: Identity | None = None
    source: Identity | None = None


class JobRecord(WireModel):
    """A record of `jobs.<worker>`: its acknowledgement is the acceptance of the job. Its key is the ordering key, else the id."""

    schema_version: SchemaVersion = SCHEMA_VERSION
    id: JobId
    tenant: Identity = DEFAULT_TENANT
    worker_name: WorkerName
    created_at: Timestamp
    args: dict[str, Any]
    ctx: CallContext = Field(default_factory=CallContext)
    ordering_key: Identity | None = None
    idempotency_key: Identity | None = None
    schedule_id: Identity | None = None
    parent_id: JobId | None = None
    retry_of: JobId | None = None
    retry: RetryRules | None = Field(None, description="In place of the worker's own policy.")
    attempt_timeout: AttemptSeconds | None = Field(None, description="Seconds, in place of the worker's own.")


class Job(WireModel):
    """A job as it stands: a record of `job-state`, whose key is the job's id, and what `list_jobs` answers."""

    schema_version: SchemaVersion = SCHEMA_VERSION
    id: JobId
    tenant: Identity = DEFAULT_TENANT
    worker_name: WorkerName
    status: JobStatus
    created_at: Timestamp
    updated_at: Timestamp
    args: dict[str, Any] | None = Field(
        None, description="Not repeated in `job-state` above 32 KB; `source` says where they stand."
    )
    ctx: CallContext = Field(default_factory=CallContext)
    error: JobError | None = None
    epoch: int | None = Field(None, description="Offset of the claim under which this was written.")
    attempt: int = Field(0, description="Number of the newest attempt; 0 before the first.")
    sequence: int = Field(0, description="Number of this record within its attempt.")
    attempts: list[Attempt] = Field(default_factory=list, description="The last 20.")
    failures: int = Field(0, description="How many attempts have failed; those that were interrupted have not.")
    crashes: int = Field(0, description="How many processes died in which an attempt of it ran.")
    engine_deaths: int = Field(0, description="How many engines died beside it, while it ran in a process of its own.")
    outages: int = Field(0, description="How many attempts in a row ended because brokers were away.")
    isolated: bool = Field(False, description="Whether its attempts run in a process of their own, since others died with it.")
    run_at: Timestamp | None = Field(None, description="When a job that waits is due.")
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    instance_id: str | None = None
    progress: JobProgress | None = Field(None, description="What the newest attempt last said of itself.")
    result: Any = None
    ordering_key: Identity | None = None
    idempotency_key: Identity | None = None
    schedule_id: Identity | None = None
    parent_id: JobId | None = None
    retry_of: JobId | None = None
    retry: RetryRules | None = Field(None, description="In place of the worker's own policy.")
    attempt_timeout: AttemptSeconds | None = Field(None, description="Seconds, in place of the worker's own.")
    source: Source | None = None


class ClaimRecord(WireModel):
    """A record of `job-state` with the key `lease/<worker>/<partition>/<lease>`: an instance takes over a job partition."""

    schema_version: SchemaVersion = SCHEMA_VERSION
    kind: Literal["claim"] = "claim"
    worker_name: WorkerName
    partition: int
    instance_id: LeaseName
    previous: int = Field(description="Offset of the last valid lease record of the partition that the writer saw; -1 for none.")
    term_seconds: float = Field(25.0, gt=0, description="How long the lease holds, from before this was sent.")


class RenewalRecord(WireModel):
    """A record of `job-state` with the key of its claim: the holder of a job partition goes on holding it."""

    schema_version: SchemaVersion = SCHEMA_VERSION
    kind: Literal["renewal"] = "renewal"
    worker_name: WorkerName
    partition: int
    instance_id: LeaseName
    epoch: int = Field(description="Offset of the claim that is renewed.")
    previous: int = Field(description="Offset of the lease record that the holder wrote before.")
    term_seconds: float = Field(gt=0, description="How long the lease holds from before this was sent.")


class ReleaseRecord(WireModel):
    """A record of `job-state` with the key of its claim: no attempt of the partition runs any more, anybody may claim it."""

    schema_version: SchemaVersion = SCHEMA_VERSION
    kind: Literal["release"] = "release"
    worker_name: WorkerName
    partition: int
    instance_id: LeaseName
    epoch: int = Field(description="Offset of the claim that ends.")
    reason: Literal["handed-over", "stopped", "died"]


class LeaseRepeat(WireModel):
    """A record of `job-state` with the key of its claim: what counts of a lease, written again by the janitor.

    It follows where a record that is void stands over the one that counts, or before it. Who has read all learns nothing by it.
    """

    schema_version: SchemaVersion = SCHEMA_VERSION
    kind: Literal["repeat"] = "repeat"
    worker_name: WorkerName
    partition: int
    instance_id: LeaseName
    epoch: int = Field(description="Offset of the newest valid claim.")
    last_lease: int = Field(description="Offset of the last valid lease record, which the next claim has to name.")
    previous: int = Field(description="What the claim named, or its own offset once its holder has written under it.")
    as_of: int = Field(description="Offset up to which the janitor had read: whoever knows of a later lease record knows better.")
    held_at: int = Field(description="When the lease was claimed or renewed last: the log's time, in milliseconds.")
    term_seconds: float = Field(ge=0, description="How long it held from then.")
    released: bool = Field(description="Whether it was released.")
    died: bool = Field(False, description="Whether that was said because the process of its holder had died.")


class BegunJob(WireModel):
    """A job in a checkpoint: what its next attempt goes on from."""

    id: JobId
    offset: int = Field(description="Where its record stands in the queue.")
    state: dict[str, Any] = Field(description="Those fields of its last snapshot that its next one continues.")


class CheckpointRecord(WireModel):
    """A record of `job-state` with the key `checkpoint/<worker>/<partition>/<lease>`: what the holder knows of its jobs."""

    schema_version: SchemaVersion = SCHEMA_VERSION
    worker_name: WorkerName
    partition: int
    instance_id: LeaseName
    epoch: int = Field(description="Offset of the claim under which it was written.")
    covers: int = Field(description="Offset in this partition of `job-state` below which every record is taken into account.")
    watermark: int = Field(description="Offset in the queue below which every job has ended.")
    ranges: list[tuple[int, int]] = Field(description="What has ended above it: first and last offsets.")
    begun: list[BegunJob] = Field(description="The jobs that were begun and have not ended.")
    packed: str | None = Field(
        None,
        description="These jobs in place of `begun`, where they are many: their JSON, compressed (zlib, RFC 1950), in base64.",
    )


class EndedKeyRecord(WireModel):
    """A record of `ended-keys` with the job's id as its key: a job has ended whose id was not fresh, and may come again."""

    schema_version: SchemaVersion = SCHEMA_VERSION
    id: JobId
    worker_name: WorkerName
    partition: int
    offset: int = Field(description="Where its record stands in the queue. Records of this id at other offsets are duplicates.")
    ended_at: Timestamp
    arguments_digest: str | None = Field(
        None, max_length=64, description="Tells other arguments from the same ones; none where they could not be read."
    )


# --- workers ----------------------------------------------------------------------------------------------------------


class WorkerDefinition(WireModel):
    """A record of `workers` with the key `definition/<worker>`. It outlives the engines that published it."""

    schema_version: SchemaVersion = SCHEMA_VERSION
    name: WorkerName
    description: str
    category: str
    kind: str | None = Field(None, description="The name under which `scheduler` offers it; none: it is not offered.")
    arguments_schema: dict[str, Any] = Field(default_factory=dict, description="JSON Schema of the arguments.")
    order_by: list[str] = Field(
        default_factory=list, description="Arguments whose values together are the ordering key; none: every job by itself."
    )
    ordering: str | None = Field(None, description="Name of the rule by which jobs get their ordering key.")


class InstanceRecord(WireModel):
    """A record of `workers` with the key `instance/<id>`: an engine that lives. A tombstone follows when it stops."""

    schema_version: SchemaVersion = SCHEMA_VERSION
    instance_id: str
    workers: list[str]
    host: str
    process_id: int
    started_at: Timestamp
    seen_at: Timestamp
    presence_interval_seconds: float | None = Field(
        None, gt=0, description="How often it says that it lives; readers of a record without it go by their own setting."
    )


class WorkerSummary(WireModel):
    """A worker as `list_workers` answers it."""

    name: WorkerName
    description: str
    category: str
    kind: str | None = None
    arguments_schema: dict[str, Any] = Field(default_factory=dict)
    live_instances: int
    backlog: int | None = Field(None, description="Jobs of the caller that wait for it; those above 10,000 are not counted.")
    running: int | None = Field(None, description="Jobs of the caller that it runs; those above 10,000 are not counted.")
    failed: int | None = Field(
        None, description="Jobs of the caller that have failed and are still kept; those above 10,000 are not counted."
    )
    paused: bool = Field(False, description="Whether it starts nothing until it is resumed; jobs are accepted all the same.")


# --- control ----------------------------------------------------------------------------------------------------------


class CancelRequest(WireModel):
    """A record of `control` with the key `job/<tenant>/<id>`: a job is to be cancelled. A tombstone follows when it has ended."""

    schema_version: SchemaVersion = SCHEMA_VERSION
    kind: Literal["cancel"] = "cancel"
    tenant: Identity = DEFAULT_TENANT
    job_id: JobId
    worker_name: WorkerName
    source: Source = Field(description="Where the job's record stands: whoever holds that partition ends the job.")
    requested_at: Timestamp


class PauseRequest(WireModel):
    """A record of `control` with the key `worker/<name>`: a worker is to start nothing. A tombstone resumes it."""

    schema_version: SchemaVersion = SCHEMA_VERSION
    kind: Literal["pause"] = "pause"
    worker_name: WorkerName
    requested_at: Timestamp


# --- memory -----------------------------------------------------------------------------------------------------------


MemoryRole = Literal["user", "assistant", "system", "tool", "summary"]


class MemoryEntry(WireModel):
    """A record of `memory` with the key `<tenant>/<user>/<conversation>/<token>`: something said, or a summary of it.

    The token is made anew for every write, so that no record takes another's place. Of two with one id, readers take the first.
    """

    schema_version: SchemaVersion = SCHEMA_VERSION
    type: Literal["entry"] = "entry"
    tenant: Identity = DEFAULT_TENANT
    user_id: Identity
    conversation_id: Identity
    id: Identity
    role: MemoryRole
    name: str | None = None
    content: str
    at: Timestamp


class MemoryCompaction(WireModel):
    """A record of `memory`: a summary takes the place of older entries, which are superseded and not deleted.

    It holds only if no other compaction of the conversation stands between `base_version` and itself.
    """

    schema_version: SchemaVersion = SCHEMA_VERSION
    type: Literal["compaction"] = "compaction"
    tenant: Identity = DEFAULT_TENANT
    user_id: Identity
    conversation_id: Identity
    id: Identity
    job_id: JobId
    base_version: int = Field(description="Offset of the last compaction that the writer saw; -1 for none.")
    supersedes: list[Identity] = Field(min_length=1)
    title: str | None = None
    summary: str = Field(min_length=1)
    at: Timestamp


# --- access -----------------------------------------------------------------------------------------------------------


class ApiKey(WireModel):
    """A record of `api-keys` with the key's id as its key: who comes in with it, and what they may do. The key itself is nowhere.

    A revocation is the same record with `revokedAt`.
    """

    schema_version: SchemaVersion = SCHEMA_VERSION
    id: str = Field(pattern="^[0-9a-f]{16}$")
    name: Identity = Field(description="What people call it.")
    tenant: Identity = DEFAULT_TENANT
    subject: Identity = Field(description="The user, or the service, within the tenant.")
    scopes: list[str] = Field(description="Rights; those that a gateway does not know are passed over.")
    digest: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the whole key, in hex.")
    created_at: Timestamp
    expires_at: Timestamp | None = None
    revoked_at: Timestamp | None = None


class AuditRecord(WireModel):
    """A record of `audit`: somebody called, and what was decided. It holds neither arguments nor secrets."""

    schema_version: SchemaVersion = SCHEMA_VERSION
    at: Timestamp = Field(description="When the call came; of a stream, when it began.")
    gateway: str = Field(description="The gateway's host and process.")
    transport: str = Field(description="`http`, `mcp`, `stdio` or `kafka`.")
    address: str | None = Field(None, description="From where, as the transport knows it.")
    tenant: str | None = Field(None, description="None where nobody knows who it was, as for `subject` and `credential`.")
    subject: str | None = None
    credential: str | None = Field(None, description="Names the API key, or the issuer of the token.")
    tool: str | None = Field(None, description="The tool that was called, if there is one of that name.")
    action: str | None = Field(None, description="The operation that was asked for; none where it did not come to one.")
    outcome: str = Field(description="`ok`, `cancelled` where the caller left, or the code of the refusal.")
    job_id: str | None = Field(None, description="The job that it was about, if there is one.")
    left_out: int | None = Field(
        None,
        ge=1,
        description="How many refusals of callers whom nobody knows the gateway did not record before this one, being too many.",
    )


RECORDS: Final[tuple[type[WireModel], ...]] = (
    JobRecord,
    Job,
    ClaimRecord,
    RenewalRecord,
    ReleaseRecord,
    LeaseRepeat,
    CheckpointRecord,
    EndedKeyRecord,
    DeadLetterHeaders,
    RecordingHeaders,
    WorkerDefinition,
    InstanceRecord,
    CancelRequest,
    PauseRequest,
    MemoryEntry,
    MemoryCompaction,
    ApiKey,
    AuditRecord,
    SandboxMarker,
)
