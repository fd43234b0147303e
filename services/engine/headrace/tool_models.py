"""The wire contract of the tools: their arguments and answers.

Arguments are closed: an unknown name there is a mistake that its sender should hear of.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints, WithJsonSchema

from headrace.core.status import JobStatus
from headrace.fields import Identity, JobId, PlainIdentity, WorkerName
from headrace.models import SCHEMA_VERSION, CallContext, ClosedModel, Job, SchemaVersion, WireModel, WorkerSummary


class ToolCall(WireModel):
    """A tool call, however it came: a name, arguments and a context."""

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    context: CallContext = Field(default_factory=CallContext)
    id: PlainIdentity | None = Field(None, description="Tells this call from others, also when it is delivered once more.")


class ToolCallRecord(WireModel):
    """A record of `tool-calls`: a tool call. Its key is the call's id; a header `authorization` may say whose it is."""

    schema_version: SchemaVersion = SCHEMA_VERSION
    call_id: PlainIdentity = Field(description="Made by the caller, and never used again; the answer has it, too.")
    name: Annotated[str, StringConstraints(min_length=1, max_length=100)] = Field(description="The tool's.")
    arguments: dict[str, Any] = Field(default_factory=dict)
    context: CallContext = Field(default_factory=CallContext)


class SchedulerArguments(ClosedModel):
    """Start background work for the user, and get a receipt at once."""

    kind: Annotated[str, StringConstraints(min_length=1, max_length=100)] = Field(
        description="What is to be done, for example `memory_compaction` to clean up a conversation's memory."
    )
    user_id: PlainIdentity | None = Field(None, description="Whose it is; the calling user when left out.")
    conversation_id: PlainIdentity | None = Field(None, description="Which conversation; the present one when left out.")
    title: Annotated[str, StringConstraints(max_length=500)] | None = Field(None, description="A title for the summary.")
    content: str | None = Field(None, description="A text to compact in place of the conversation's memory.")
    args: dict[str, Any] | None = Field(None, description="Arguments of kinds other than `memory_compaction`.")
    ordering_key: PlainIdentity | None = Field(
        None, description="Work of one kind with equal keys is done one after another; as the kind says when left out."
    )
    wait: Annotated[float, Field(ge=0, le=60)] | None = Field(
        None, description="Seconds to wait for the end: the answer then has the job as it stands. Leave it out as a rule."
    )
    idempotency_key: PlainIdentity | None = Field(
        None, description="A text of your own for this request: a call that is repeated with it gets the same job."
    )


class SchedulerReceipt(WireModel):
    """What `scheduler` answers: the job is accepted, and will be done."""

    scheduled: Literal[True] = True
    job_id: JobId
    worker_name: WorkerName
    job: Job | None = Field(None, description="With `wait`: the job as it stood at its end, or when the time was over.")


ListedStatus = Annotated[
    JobStatus, WithJsonSchema({"type": "string", "enum": [status for status in JobStatus if status is not JobStatus.SCHEDULED]})
]
"""The status of jobs that are asked for. `scheduled` is taken, and offered to nobody: no job stands so before one can be given a
later time."""


class WorkerManagerArguments(ClosedModel):
    """Look at background workers and jobs, do a failed job anew, and cancel one."""

    action: Literal["list_workers", "list_jobs", "get_job", "retry_job", "cancel_job"] = Field(description="What to do.")
    job_id: JobId | None = Field(None, description="Which job; for get_job, retry_job and cancel_job alone.")
    status: ListedStatus | None = Field(None, description="Only jobs that stand so.")
    worker_name: WorkerName | None = Field(None, description="Only jobs of this worker.")
    user_id: PlainIdentity | None = Field(None, description="Only jobs of this user.")
    conversation_id: PlainIdentity | None = Field(None, description="Only jobs of this conversation.")
    limit: Annotated[int, Field(ge=1, le=100)] | None = Field(None, description="At most so many jobs; 20 when left out.")
    cursor: Annotated[str, StringConstraints(max_length=300)] | None = Field(None, description="`nextCursor` of the page before.")


class WorkerList(WireModel):
    """What `worker_manager` answers to `list_workers`."""

    workers: list[WorkerSummary]


class JobList(WireModel):
    """What `worker_manager` answers to `list_jobs`, newest first. `nextCursor` is null on the last page."""

    jobs: list[Job]
    next_cursor: str | None = None

    def to_wire(self) -> dict[str, Any]:
        """As any model, but `nextCursor`, and `args` and `error` of each job, are there also when they are null: who reads a
        table of jobs need not ask whether a column exists."""
        jobs = [{"args": None, "error": None} | job.to_wire() for job in self.jobs]
        return super().to_wire() | {"jobs": jobs, "nextCursor": self.next_cursor}


class JobAnswer(WireModel):
    """What `worker_manager` answers to `get_job` and `cancel_job`, the job, and to `retry_job`, the job that does it anew."""

    job: Job


class ToolError(WireModel):
    """Why a tool call was refused, and what to do."""

    code: str
    message: str


class ToolSuccess(WireModel):
    """The answer to a tool call that was done."""

    ok: Literal[True] = True
    data: dict[str, Any]


class ToolRefusal(WireModel):
    """The answer to a tool call that was refused; nothing was changed."""

    ok: Literal[False] = False
    error: ToolError


PASSING_CODES: Final = frozenset(
    {"unauthenticated", "rate_limited", "too_many_in_flight", "broker_unavailable", "enqueue_timeout", "configuration_error"}
)
"""Codes of what may well be done a while later."""


class LastingRefusal(ToolRefusal):
    """A refusal of a call of which something may be accepted or done all the same: whatever the reason, the call is not to be
    done once more."""


class ToolResultRecord(WireModel):
    """A record of `tool-results`: the answer to a tool call, in the partition of the same number. Its key is the call's id.

    To whom it is given stands in headers: `headrace-tenant`, and of who may act for one user alone `headrace-user`. Where there
    are none, it was not known whose the call was. With `headrace-refused-for-now` it was refused for now. Sent again with the
    same id, either is a new call. With `headrace-may-be-done` it was refused, and may be done all the same, in part or whole:
    sent again with the same id it is passed over.
    """

    schema_version: SchemaVersion = SCHEMA_VERSION
    call_id: Identity
    ok: bool
    data: dict[str, Any] | None = Field(None, description="What the tool answers, where it is ok.")
    error: ToolError | None = Field(None, description="Why it was refused, where it is not.")


class MemoryCompactionArguments(ClosedModel):
    """Arguments of `memory_compaction_worker`."""

    user_id: Identity = Field(description="Whose memory.")
    conversation_id: Identity = Field(description="Which conversation's memory.")
    title: Annotated[str, StringConstraints(max_length=500)] | None = Field(None, description="Title of the summary.")
    content: str | None = Field(None, description="A text to compact in place of the conversation's memory.")


class MemoryCompactionResult(WireModel):
    """Result of `memory_compaction_worker`: how much went in and came out, as entries and estimated tokens."""

    entries_before: int
    entries_after: int
    tokens_before: int
    tokens_after: int
    superseded: int
    summariser: str
    compacted: bool = Field(description="False: the memory was within its budget already, and nothing was changed.")
    summary: str | None = None


TOOLS: Final[tuple[type[WireModel], ...]] = (
    ToolCall,
    ToolCallRecord,
    ToolResultRecord,
    SchedulerArguments,
    SchedulerReceipt,
    WorkerManagerArguments,
    WorkerList,
    JobList,
    JobAnswer,
    ToolSuccess,
    ToolRefusal,
    MemoryCompactionArguments,
    MemoryCompactionResult,
)
