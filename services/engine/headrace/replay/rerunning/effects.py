"""What a job would have done through its context, captured in a replay: nothing of it happens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.abstract_worker import AbstractWorker
from headrace.arguments import PublishedSchemas
from headrace.engine.children import child_fields
from headrace.errors import WorkerUnknown
from headrace.idempotency import Child
from headrace.job_context import ChildRequest
from headrace.models import Job, WorkerDefinition
from headrace.ports import ConversationRef, RecordingKey
from headrace.submission import check_seconds, ordering_key_of, plain_arguments, prepare


@dataclass(frozen=True, slots=True)
class ProgressSaid:
    """An attempt said how far it was."""

    fraction: float
    text: str | None


@dataclass(frozen=True, slots=True)
class MemoryAppended:
    """Entries would have been added to a conversation's memory: their ids and texts."""

    conversation: ConversationRef
    entries: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class MemoryCompacted:
    """A summary would have taken the place of entries."""

    conversation: ConversationRef
    supersedes: Sequence[str]
    summary: str
    title: str | None


@dataclass(slots=True)
class Effects:
    """What one attempt did through its context, in the order of its calls.

    Attributes:
        enqueued: the jobs that it would have enqueued, with the ids that they would have.
        asked_outside: what was not recorded, and was asked for outside, as the caller of the replay allowed.
        not_recorded: what was not recorded, and was refused. The attempt may have caught that.
        memory_unknown: conversations whose memory it asked for, and nothing tells what that was.
    """

    enqueued: list[Job] = field(default_factory=list)
    progress: list[ProgressSaid] = field(default_factory=list)
    memory: list[MemoryAppended | MemoryCompacted] = field(default_factory=list)
    asked_outside: list[RecordingKey] = field(default_factory=list)
    not_recorded: list[RecordingKey] = field(default_factory=list)
    memory_unknown: list[ConversationRef] = field(default_factory=list)

    def report(self, _job: Any, _attempt: int, fraction: float, text: str | None) -> None:
        """The attempt says how far it is; called from any thread."""
        self.progress.append(ProgressSaid(float(fraction), None if text is None else str(text)))

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON has it; what there is none of is left out."""
        told = {
            "enqueued": [job.to_wire() for job in self.enqueued],
            "progress": [{"fraction": each.fraction, "text": each.text} for each in self.progress],
            "memory": [_memory_json(each) for each in self.memory],
            "askedOutside": [_key_json(each) for each in self.asked_outside],
            "notRecorded": [_key_json(each) for each in self.not_recorded],
            "memoryUnknown": [{"userId": each.user_id, "conversationId": each.conversation_id} for each in self.memory_unknown],
        }
        return {name: each for name, each in told.items() if each}


def _key_json(key: RecordingKey) -> dict[str, Any]:
    return {"name": key.name, "number": key.number}


def _memory_json(write: MemoryAppended | MemoryCompacted) -> dict[str, Any]:
    _, user_id, conversation_id = write.conversation
    address = {"userId": user_id, "conversationId": conversation_id}
    if isinstance(write, MemoryAppended):
        return {"did": "append", **address, "entries": [{"id": each, "content": content} for each, content in write.entries]}
    told = {"supersedes": list(write.supersedes), "summary": write.summary, "title": write.title}
    return {"did": "compact", **address, **told}


class CapturedChildren:
    """Makes the jobs that replayed jobs enqueue, and writes none of them.

    Args:
        definitions: of the workers that jobs can be enqueued for, by name.
    """

    def __init__(self, definitions: Mapping[str, WorkerDefinition]) -> None:
        self._definitions = definitions
        self._schemas = PublishedSchemas()

    async def enqueue(self, request: ChildRequest, now: int) -> Job:
        """The job as it would have been accepted, with the id that it would have.

        Args:
            now: milliseconds since the Unix epoch.

        Raises:
            As `JobContext.enqueue`, whatever does not come from brokers.
        """
        check_seconds(request.timeout)
        reference = request.worker() if isinstance(request.worker, type) else request.worker
        made: AbstractWorker[Any] | None = None if isinstance(reference, str) else reference
        args = plain_arguments(request.args, made)
        if made is None:
            definition = self._definition(reference)
            await self._schemas.check(definition, [args])
        else:
            definition = made.definition()
        key = request.ordering_key or ordering_key_of(definition, args, None if made is None else made.arguments_model)
        child: Child = request.ids.take(definition.name, key, args)
        try:
            made_at = now, bytes(10)
            prepared = prepare(definition, args, child_fields(request), key, (definition.name, 1), job_id=child.id, made=made_at)
        except BaseException:
            request.ids.give_back(child)
            raise
        return prepared.job

    def _definition(self, name: str) -> WorkerDefinition:
        found = self._definitions.get(name)
        if found is None:
            names = ", ".join(sorted(self._definitions)) or "none"
            raise WorkerUnknown(f"No worker named {name!r} is defined. Defined are: {names}.")
        return found
