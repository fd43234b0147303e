"""Doing anew what is in dead letters: a new job for each, made once."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from headrace.dead_letters.letters import DeadLetter
from headrace.errors import DeadLetterUnusable, HeadraceError
from headrace.fields import Identity, JobId, WorkerName
from headrace.models import DEFAULT_TENANT, CallContext, Job, Source
from headrace.resubmission import Resubmission, Submitter, id_of_next, own_limits

_AT_A_TIME = 100
_identity: TypeAdapter[str] = TypeAdapter(Identity)
_job_id: TypeAdapter[str] = TypeAdapter(JobId)
_worker_name: TypeAdapter[str] = TypeAdapter(WorkerName)


@dataclass(frozen=True, slots=True, kw_only=True)
class Redrive:
    """What became of the redrive of a letter.

    Attributes:
        outcome: `redriven`: a new job is accepted; `already_redriven`: one was made before, or for another letter of the same
            record; `failed`: `error` says why; `possible`: it was a trial, and a job would be made.
        job_id: of the job that was, or would be, made; None where there can be none.
        job: the job, where there is one: new, or as it stands.
    """

    letter: DeadLetter
    outcome: Literal["redriven", "already_redriven", "failed", "possible"]
    job_id: str | None = None
    job: Job | None = None
    error: HeadraceError | None = None

    def to_wire(self) -> dict[str, Any]:
        """As a JSON object; the letter without its bytes."""
        described = {
            "letter": self.letter.to_wire(whole=False),
            "outcome": self.outcome,
            "jobId": self.job_id,
            "job": None if self.job is None else self.job.to_wire(),
            "error": None if self.error is None else {"code": self.error.code, "message": str(self.error)},
        }
        return {name: value for name, value in described.items() if value is not None}


async def redrive(
    letters: Sequence[DeadLetter],
    submitter: Submitter,
    *,
    worker_name: str | None,
    args: Mapping[str, Any] | None,
    dry_run: bool,
    timeout: float,
) -> list[Redrive]:
    """Makes a new job of each letter, unless it has one already; in the order of the letters.

    A letter that fails costs itself alone. `find` of the submitter decides whether a letter was redriven before.
    """
    agains = [_prepare(letter, worker_name, args) for letter in letters]
    firsts: dict[str, tuple[DeadLetter, Resubmission]] = {}
    for letter, again in zip(letters, agains, strict=True):
        if isinstance(again, Resubmission):
            # An engine may write the same record twice: one job is made for both.
            firsts.setdefault(again.job_id, (letter, again))
    waiting = list(firsts.values())
    made: dict[str, Redrive] = {}
    for begin in range(0, len(waiting), _AT_A_TIME):
        some = waiting[begin : begin + _AT_A_TIME]
        for each in await asyncio.gather(*(_redrive(*one, submitter, dry_run, timeout) for one in some)):
            made[each.job_id or ""] = each
    return [_outcome(letter, again, made) for letter, again in zip(letters, agains, strict=True)]


def resubmission_of(letter: DeadLetter, worker_name: str | None = None, args: Mapping[str, Any] | None = None) -> Resubmission:
    """The job that does anew what a letter asked for: with its own arguments, context, tenant and key where they can be read.

    Args:
        worker_name: of the worker that is to do it; the one that the record names, else the one in whose queue it stood.
        args: in place of its own.

    Raises:
        DeadLetterUnusable: it has no arguments that can be read and none are given, or names no worker.
    """
    raw = letter.record() or {}
    own_worker, own_args = _valid(_worker_name, raw.get("workerName")), raw.get("args")
    worker = worker_name or own_worker or letter.worker_name
    chosen = own_args if args is None else dict(args)
    if not isinstance(chosen, dict):
        raise DeadLetterUnusable(
            f"Dead letter {letter.place} cannot be redriven: {_why_unreadable(letter)}. "
            "To do the work all the same, give the arguments of the new job, and its worker."
        )
    if worker is None:
        raise DeadLetterUnusable(f"Dead letter {letter.place} names no worker: give the one that is to do it.")
    # A key that belongs to other arguments or another worker says nothing about these.
    as_it_was = args is None and worker == own_worker
    source = letter.source or Source(topic="", partition=letter.partition, offset=letter.offset)
    return Resubmission(
        job_id=id_of_next(source, letter.job_id or _fingerprint(letter)),
        worker_name=worker,
        args=chosen,
        ctx=_context(raw.get("ctx")),
        tenant=_valid(_identity, raw.get("tenant")) or DEFAULT_TENANT,
        ordering_key=_valid(_identity, raw.get("orderingKey")) if as_it_was else None,
        retry_of=_valid(_job_id, letter.job_id),
        # What was right for one worker says nothing of another.
        own=own_limits(raw) if worker == own_worker else {},
    )


def _prepare(letter: DeadLetter, worker_name: str | None, args: Mapping[str, Any] | None) -> Resubmission | DeadLetterUnusable:
    try:
        return resubmission_of(letter, worker_name, args)
    except DeadLetterUnusable as error:
        return error


async def _redrive(letter: DeadLetter, again: Resubmission, submitter: Submitter, dry_run: bool, timeout: float) -> Redrive:
    try:
        earlier = await submitter.find(again.job_id, again.tenant)
        if earlier is not None:
            return Redrive(letter=letter, outcome="already_redriven", job_id=again.job_id, job=earlier)
        await submitter.check(again)
        if dry_run:
            return Redrive(letter=letter, outcome="possible", job_id=again.job_id)
        job = await submitter.submit(again, timeout=timeout)
    except HeadraceError as error:
        return Redrive(letter=letter, outcome="failed", job_id=again.job_id, error=error)
    return Redrive(letter=letter, outcome="redriven", job_id=again.job_id, job=job)


def _outcome(letter: DeadLetter, again: Resubmission | DeadLetterUnusable, made: Mapping[str, Redrive]) -> Redrive:
    if not isinstance(again, Resubmission):
        return Redrive(letter=letter, outcome="failed", error=again)
    first = made[again.job_id]
    if first.letter is letter:
        return first
    done = first.outcome in ("redriven", "possible")
    return replace(first, letter=letter, outcome="already_redriven" if done else first.outcome)


def _why_unreadable(letter: DeadLetter) -> str:
    if letter.cut_from_bytes is not None:
        return f"only the beginning of its {letter.cut_from_bytes} bytes was kept"
    if letter.record() is None:
        return "its bytes are no job" + (f" ({letter.message})" if letter.message else "")
    return "it has no arguments that can be read" + (f" ({letter.message})" if letter.message else "")


def _context(value: Any) -> dict[str, Any]:
    try:
        return CallContext.model_validate(value or {}).to_wire()
    except ValidationError:
        return {}


def _fingerprint(letter: DeadLetter) -> str:
    digest = hashlib.sha256(letter.key or b"")
    digest.update(b"\0" + (letter.value or b""))
    return f"sha256:{digest.hexdigest()}"


def _valid(kind: TypeAdapter[str], value: Any) -> str | None:
    """The value, or None if it is not what the contract says of it."""
    try:
        return kind.validate_python(value)
    except ValidationError:
        return None
