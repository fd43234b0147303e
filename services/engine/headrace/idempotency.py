"""The ids of jobs that must not be there twice: they follow from what is asked for, and who asks again gets the same job."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import Any, NamedTuple

import orjson

from headrace.core.identifiers import derived_id
from headrace.core.numbering import Numbering
from headrace.errors import IdempotencyConflict
from headrace.models import Job

_MOST_REMEMBERED = 10_000


def digest_of(args: Mapping[str, Any]) -> str:
    """A short text that differs when arguments do; args are as read from JSON, the order of their names makes no difference."""
    return hashlib.sha256(orjson.dumps(args, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def digest_of_sent(args: Mapping[str, Any]) -> str:
    """The same of arguments that are about to be sent, whatever Python makes JSON of."""
    return digest_of(orjson.loads(orjson.dumps(args)))


def id_of_key(tenant: str, worker: str, ordering_key: str | None, key: str, scope: str | None = None) -> str:
    """The id of the job that has an idempotency key. The ordering key is in it, so that equal ids meet in one partition.

    Args:
        scope: within what of the tenant the key tells requests apart; the whole tenant when left out.
    """
    return derived_id("key", tenant, worker, ordering_key or "", key, *([] if scope is None else [scope]))


class Child(NamedTuple):
    """A job that another one enqueues.

    Attributes:
        kind: what it has in common with those that are equal to it.
        number: its own among these, from 0.
    """

    id: str
    kind: tuple[str, str, str]
    number: int


class ChildIds:
    """Counts the children of one attempt. Attempts that enqueue the same, in whatever order, enqueue the same jobs.

    It may be used from several threads.
    """

    def __init__(self, parent_id: str) -> None:
        self._parent_id = parent_id
        self._lock = Lock()
        self._numbering: Numbering[tuple[str, str, str]] = Numbering()

    def take(self, worker: str, ordering_key: str | None, args: Mapping[str, Any]) -> Child:
        """The next of the children that are equal in this."""
        kind = (worker, ordering_key or "", digest_of_sent(args))
        with self._lock:
            number = self._numbering.take(kind)
        return Child(derived_id("child", self._parent_id, *kind, str(number)), kind, number)

    def give_back(self, child: Child) -> None:
        """It may not have been accepted: whoever enqueues its like next tries the same job again."""
        with self._lock:
            self._numbering.give_back(child.kind, child.number)


class Accepted:
    """The jobs with an idempotency key that this process has had accepted lately.

    Args:
        window_seconds: how long they are remembered; the newest 10,000 of them.
    """

    def __init__(self, window_seconds: float) -> None:
        self._window = window_seconds * 1000
        self._jobs: OrderedDict[str, tuple[int, str, Job]] = OrderedDict()

    def add(self, job: Job, now: int) -> None:
        """A job was accepted. `now` is in milliseconds."""
        self._jobs.setdefault(job.id, (now, digest_of_sent(job.args or {}), job))
        if len(self._jobs) > _MOST_REMEMBERED:
            self._jobs.popitem(last=False)

    def find(self, asked: Job, now: int) -> Job | None:
        """The job that was accepted for the same request.

        Raises:
            IdempotencyConflict: it was accepted with other arguments.
        """
        while self._jobs and next(iter(self._jobs.values()))[0] < now - self._window:
            self._jobs.popitem(last=False)
        known = self._jobs.get(asked.id)
        if known is None:
            return None
        _, digest, job = known
        if digest != digest_of_sent(asked.args or {}):
            raise conflict_with(job)
        return job


def check_same(asked: Job, known: Job) -> None:
    """Raises IdempotencyConflict where a known job was accepted with other arguments than it is asked for now."""
    # Of a job with large arguments they may not be known.
    if known.args is not None and digest_of_sent(known.args) != digest_of_sent(asked.args or {}):
        raise conflict_with(known)


def conflict_with(job: Job) -> IdempotencyConflict:
    return IdempotencyConflict(
        f"The idempotency key {job.idempotency_key!r} belongs to job {job.id}, which {job.worker_name} was asked for with other "
        "arguments: give these another key, or repeat the call with the arguments of that job."
    )
