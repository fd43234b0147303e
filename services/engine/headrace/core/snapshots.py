"""The snapshots of a job: what each move of its life writes to `job-state`, as plain JSON objects.

They are made from the job record as it was read, so that fields which this version does not know live on.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, Final

from headrace.core.ownership import Version
from headrace.core.status import IllegalMove, JobStatus, check_move

ATTEMPTS_KEPT = 20
TRACEBACK_LIMIT_BYTES = 16 * 1024
ARGUMENTS_REPEATED_BYTES = 32 * 1024
# An engine holds the histories of thousands of jobs that wait for a retry, twenty attempts each.
HISTORY_MESSAGE_BYTES = 500

ISOLATED_FROM: Final = 2
"""From so many deaths on, a job runs in a child process of its own (rule X1)."""

Snapshot = dict[str, Any]

# What only the owner of a job writes. A job record that has it says nothing true by it.
_WRITTEN_BY_OWNERS = frozenset(
    {
        *("status", "updatedAt", "epoch", "attempt", "sequence", "attempts", "failures", "source"),
        *("crashes", "engineDeaths", "isolated", "runAt", "startedAt", "finishedAt", "instanceId", "progress", "result", "error"),
        "outages",
        *("argsOmitted", "ctxOmitted"),  # by a list, of what it leaves out
    }
)
# On the wire names are camelCase. The models take a field under its Python name, too, and unchecked it is no field of the wire.
_SPELT_OTHERWISE = frozenset(
    {
        *("schema_version", "worker_name", "created_at", "updated_at", "run_at", "started_at", "finished_at", "instance_id"),
        *("ordering_key", "idempotency_key", "schedule_id", "parent_id", "retry_of", "attempt_timeout", "engine_deaths"),
    }
)
NOT_ACCEPTED = _WRITTEN_BY_OWNERS | _SPELT_OTHERWISE
"""Names of fields that a job record may carry, whoever wrote it, and that no reader takes from it."""
# What a job has while it waits for its time, or of the attempt before: the next attempt begins without.
_UNTIL_THE_NEXT_ATTEMPT = frozenset({"runAt", "progress"})
_UNTIL_DUE = frozenset({"runAt"})


CONTINUED = (
    *("status", "updatedAt", "startedAt", "epoch", "attempt", "sequence", "attempts", "instanceId"),
    *("failures", "crashes", "engineDeaths", "isolated", "outages", "runAt"),
)
"""What goes on from one owner of a job to the next: those fields of its last snapshot that the next one continues."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Under whose name snapshots of a partition are written: the instance and the epoch of its claim."""

    instance_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class MostDeaths:
    """How much may die with one job before it is given up (rule X1).

    Attributes:
        processes: those in which it ran.
        engines: those beside which it ran in a process of its own, by their supervisors' word.
    """

    processes: int = 3
    engines: int = 10


def version_of(snapshot: Mapping[str, Any]) -> Version:
    return Version(snapshot["epoch"], snapshot["attempt"], snapshot["sequence"])


def queued(record: Mapping[str, Any], source: Mapping[str, Any] | None, *, repeat_arguments: bool = True) -> Snapshot:
    """A job as it was accepted, before anyone has written of it. It is where every life starts, and is not itself written.

    Fields that this version does not know stay; those that are not a job record's to have (`NOT_ACCEPTED`) do not.
    """
    snapshot = accepted(record)
    if not repeat_arguments:
        del snapshot["args"]
    return {**snapshot, **unbegun(), "updatedAt": record["createdAt"], "source": source}


def accepted(record: Mapping[str, Any]) -> dict[str, Any]:
    """What never changes of a job: its record, without the fields that are not a job record's to have."""
    return {name: value for name, value in record.items() if name not in NOT_ACCEPTED}


def unbegun() -> Snapshot:
    """What changes of a job, as it stands before the first attempt; it is the same for every job.

    All further moves may be made of this part alone: a snapshot is what never changes of the job, and its newest state.
    """
    return {
        "status": JobStatus.QUEUED,
        "attempt": 0,
        "sequence": 0,
        "epoch": -1,
        "attempts": [],
    }


def running(before: Snapshot, writer: Writer, now: str) -> Snapshot:
    """A new attempt begins. An attempt that was left running by a former owner is written down as interrupted."""
    attempts = before["attempts"]
    if attempts and attempts[-1]["status"] == "running":
        attempts = [*attempts[:-1], _cut_off(attempts[-1], now)]
    else:
        check_move(before["status"], JobStatus.RUNNING)
    number = before["attempt"] + 1
    begun = {
        "attempt": number,
        "epoch": writer.epoch,
        "instanceId": writer.instance_id,
        "startedAt": now,
        "status": "running",
    }
    return {
        **_without(before, _UNTIL_THE_NEXT_ATTEMPT),
        "status": JobStatus.RUNNING,
        "updatedAt": now,
        "startedAt": before.get("startedAt") or now,
        "epoch": writer.epoch,
        "attempt": number,
        "sequence": 1,
        "instanceId": writer.instance_id,
        "attempts": [*attempts[1 - ATTEMPTS_KEPT :], begun],
    }


def _without(snapshot: Snapshot, names: Set[str]) -> Snapshot:
    return snapshot if names.isdisjoint(snapshot) else {name: value for name, value in snapshot.items() if name not in names}


def _cut_off(attempt: Mapping[str, Any], now: str) -> dict[str, Any]:
    return {**attempt, "status": "interrupted", "finishedAt": now}


def _ended(before: Snapshot, status: JobStatus, attempt_status: str, now: str, extra: Mapping[str, Any]) -> Snapshot:
    check_move(before["status"], status)
    attempts = before["attempts"]
    last = {**attempts[-1], "status": attempt_status, "finishedAt": now}
    if "error" in extra:
        message = shorten(extra["error"]["message"], HISTORY_MESSAGE_BYTES)
        last["error"] = {"type": extra["error"]["type"], "message": message}
    return {
        **before,
        "status": status,
        "updatedAt": now,
        "sequence": before["sequence"] + 1,
        "attempts": [*attempts[:-1], last],
        **extra,
    }


def completed(before: Snapshot, result: Any, now: str) -> Snapshot:
    """The attempt returned. Of what it last said of its progress the share becomes 1: few workers say that at the end."""
    extra: Snapshot = {"result": result, "finishedAt": now}
    if (progress := before.get("progress")) is not None:
        extra["progress"] = {**progress, "fraction": 1.0}
    return _ended(before, JobStatus.COMPLETED, "completed", now, extra)


def failed(before: Snapshot, error: Mapping[str, Any], now: str) -> Snapshot:
    """The attempt failed, and no other follows."""
    if before["status"] != JobStatus.RUNNING:
        raise IllegalMove(f"no attempt of a job that is {before['status']} can fail")
    extra = {"error": error, "finishedAt": now, "failures": failures(before) + 1}
    return _ended(before, JobStatus.FAILED, "failed", now, extra)


def retried(before: Snapshot, error: Mapping[str, Any], due: str, now: str) -> Snapshot:
    """The attempt failed, and another follows when the job is due. Why it failed stands in the history alone."""
    after = _ended(before, JobStatus.QUEUED, "failed", now, {"error": error, "runAt": due, "failures": failures(before) + 1})
    del after["error"]
    after.pop("outages", None)
    return after


def failures(snapshot: Mapping[str, Any]) -> int:
    """How many attempts of a job have failed; the history has the last of them alone."""
    return int(snapshot.get("failures", 0))


def crashes(snapshot: Mapping[str, Any]) -> int:
    """How many processes died in which an attempt of the job ran."""
    return int(snapshot.get("crashes", 0))


def engine_deaths(snapshot: Mapping[str, Any]) -> int:
    """How many engines died while the job ran in a process of its own, beside them."""
    return int(snapshot.get("engineDeaths", 0))


def crashed(fields: Mapping[str, Any]) -> Snapshot:
    """The job as it stands when it is known that the process of its engine died, in which it ran (rule X1).

    Of one that ran in a process of its own that says little: the engine counts the deaths of that process itself. Else a job that
    was isolated for another's sake would be taken for poison when its engine ends once more, by whatever. So these deaths are
    counted apart, and only many of them tell of a job that ends its engine from outside.
    """
    if fields.get("isolated"):
        return {**fields, "engineDeaths": engine_deaths(fields) + 1}
    return _counted(fields)


def _counted(fields: Mapping[str, Any]) -> Snapshot:
    return {**fields, "crashes": crashes(fields) + 1}


def is_isolated(snapshot: Mapping[str, Any]) -> bool:
    """Whether a job that stands so runs in a process of its own from now on, where a death concerns it alone."""
    return crashes(snapshot) >= ISOLATED_FROM


def is_poison(snapshot: Mapping[str, Any], most: MostDeaths) -> bool:
    """Whether so much died with a job that runs in a process of its own that it is given up."""
    return crashes(snapshot) >= most.processes or engine_deaths(snapshot) >= most.engines


def died(before: Snapshot, error: Mapping[str, Any], now: str) -> Snapshot:
    """The process of its own died in which the attempt ran: that is no failure, and counts as the death of any other process."""
    after = _counted(_ended(before, JobStatus.QUEUED, "interrupted", now, {"error": error}))
    del after["error"]
    return after


def progressed(before: Snapshot, progress: Mapping[str, Any], now: str) -> Snapshot:
    """The attempt runs on, and says how far it is."""
    if before["status"] != JobStatus.RUNNING:
        raise IllegalMove(f"a job that is {before['status']} makes no progress")
    return {**before, "updatedAt": now, "sequence": before["sequence"] + 1, "progress": progress}


def interrupted(before: Snapshot, now: str) -> Snapshot:
    """The attempt was stopped for reasons that are not the job's: it waits for another, and has not failed."""
    return _ended(before, JobStatus.QUEUED, "interrupted", now, {})


def cut_short(before: Snapshot, now: str) -> Snapshot:
    """A broker that was away ended the attempt: that is no failure, unless it goes on for ever."""
    return {**interrupted(before, now), "outages": outages(before) + 1}


def outages(snapshot: Mapping[str, Any]) -> int:
    """How many attempts of a job were ended by a broker that was away, one after another: those since it last failed, if ever."""
    return int(snapshot.get("outages", 0))


def refused(before: Snapshot, writer: Writer, error: Mapping[str, Any], now: str) -> Snapshot:
    """The job cannot be started, and fails without a further attempt. One that a former owner left running was interrupted."""
    check_move(before["status"], JobStatus.FAILED)
    attempts = before["attempts"]
    if attempts and attempts[-1]["status"] == "running":
        attempts = [*attempts[:-1], _cut_off(attempts[-1], now)]
    return {
        **_without(before, _UNTIL_THE_NEXT_ATTEMPT),
        "status": JobStatus.FAILED,
        "updatedAt": now,
        "finishedAt": now,
        "epoch": writer.epoch,
        "sequence": before["sequence"] + 1,
        "instanceId": writer.instance_id,
        "attempts": attempts,
        "error": error,
    }


def cancelled(before: Snapshot, writer: Writer, now: str) -> Snapshot:
    """Somebody cancelled the job: no attempt follows. One that a former owner left running was interrupted."""
    check_move(before["status"], JobStatus.CANCELLED)
    attempts = before["attempts"]
    if attempts and (last := attempts[-1])["status"] == "running":
        own = last["epoch"] == writer.epoch
        attempts = [*attempts[:-1], {**last, "status": "cancelled", "finishedAt": now} if own else _cut_off(last, now)]
    return {
        **_without(before, _UNTIL_DUE),
        "status": JobStatus.CANCELLED,
        "updatedAt": now,
        "finishedAt": now,
        "epoch": writer.epoch,
        "sequence": before["sequence"] + 1,
        "instanceId": writer.instance_id,
        "attempts": attempts,
    }


def shorten(text: str, limit: int = TRACEBACK_LIMIT_BYTES) -> str:
    """`text` in at most `limit` bytes of UTF-8; where it is longer, its middle is left out."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= limit:
        return text
    mark = "\n... shortened ...\n"
    half = (limit - len(mark)) // 2
    return encoded[:half].decode(errors="ignore") + mark + encoded[-half:].decode(errors="ignore")
