"""`scheduler`: an agent asks for background work and gets a receipt at once."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from headrace import (
    ArgumentsInvalid,
    CallContext,
    HeadraceError,
    Job,
    MemoryCompactionArguments,
    SchedulerArguments,
    SchedulerReceipt,
    WorkerDefinition,
    WorkerUnknown,
)
from headrace_gateway.access import Scope
from headrace_gateway.operations import Operations
from headrace_gateway.tools.definition import Caller, TaskSupport, ToolAnnotations, ToolDefinition
from headrace_gateway.tools.kinds import MEMORY_COMPACTION, schedulable, that_count, with_kinds, without_needless_nulls
from headrace_gateway.tools.refusals import ToolRefused

logger = logging.getLogger(__name__)

DESCRIPTION = """\
Start background work and get a receipt at once: the work is accepted, and goes on after you have answered the user.

Use it with kind "memory_compaction" whenever a conversation's memory has to be cleaned up, compacted or summarised. That \
always goes through this tool: never call a worker directly, and never do such work yourself in the conversation. Leave \
userId and conversationId out to mean the present user and conversation.

Other kinds take their arguments in args; worker_manager with action "list_workers" lists every kind and its argumentsSchema.

The receipt has the jobId. Use worker_manager to see later what became of it; do not wait for it, and do not schedule the same \
work again because it has not ended yet. How and where a job is executed is none of your concern."""


def scheduler_tool() -> ToolDefinition[SchedulerArguments]:
    """The tool `scheduler`."""

    async def handle(arguments: SchedulerArguments, caller: Caller) -> SchedulerReceipt:
        definition = await _worker_for(arguments.kind, caller.operations)
        context = effective_context(arguments, caller)
        if arguments.wait is not None:
            # Before anything is accepted: whoever may not see the job is told so now.
            caller.principal.require(Scope.JOBS_READ)
        args = without_needless_nulls(_job_arguments(arguments, context), definition.arguments_schema)
        try:
            job = await caller.operations.enqueue(
                definition.name,
                args,
                context,
                ordering_key=arguments.ordering_key,
                idempotency_key=arguments.idempotency_key or caller.call_id,
            )
        except WorkerUnknown:
            # It was removed just now, and its kind with it.
            left = await caller.operations.worker_definitions()
            raise ToolRefused("kind_unknown", _unknown_kind(arguments.kind, left)) from None
        receipt = SchedulerReceipt(job_id=job.id, worker_name=job.worker_name)
        if arguments.wait is None:
            return receipt
        return receipt.model_copy(update={"job": await _at_its_end(job, arguments.wait, caller.operations)})

    return ToolDefinition(
        name="scheduler",
        description=DESCRIPTION,
        arguments=SchedulerArguments,
        answers=(SchedulerReceipt,),
        annotations=ToolAnnotations(read_only=False, destructive=False),
        handler=handle,
        show=lambda schema, workers: with_kinds(schema, schedulable(workers)),
        task=TaskSupport(job_id=_job_that_goes_on, answer=_receipt_of),
        operation=lambda _: "enqueue",
        repeatable=True,
    )


def effective_context(arguments: SchedulerArguments, caller: Caller) -> CallContext:
    """The context of the job: what the call's context has, and over it the user and the conversation that were given. A caller
    who may act for one user alone need not name that one.

    Raises:
        AccessDenied: the caller may not act for the user.
    """
    context = caller.context
    user_id = context.user_id if arguments.user_id is None else arguments.user_id
    update = {"user_id": caller.principal.check_user(user_id)}
    if arguments.conversation_id is not None:
        update["conversation_id"] = arguments.conversation_id
    return context.model_copy(update=update)


def _job_arguments(arguments: SchedulerArguments, context: CallContext) -> dict[str, Any]:
    if arguments.kind == MEMORY_COMPACTION:
        return _memory_arguments(arguments, context)
    # To drop a text in silence would lose it, and to put it into args would guess at names.
    for name, value in (("title", arguments.title), ("content", arguments.content)):
        if value is not None:
            raise ArgumentsInvalid(
                f'{name} goes with the kind "{MEMORY_COMPACTION}" only: for {arguments.kind!r} put it into args, '
                "if its argumentsSchema (see worker_manager, list_workers) has such a field.",
            )
    return arguments.args or {}


def _memory_arguments(arguments: SchedulerArguments, context: CallContext) -> dict[str, Any]:
    if arguments.args is not None:
        raise ArgumentsInvalid(
            f'args does not go with the kind "{MEMORY_COMPACTION}": give userId, conversationId, title and content beside kind.'
        )
    user_id, conversation_id = context.user_id, context.conversation_id
    if user_id is None or conversation_id is None:
        missing = [name for name, value in (("userId", user_id), ("conversationId", conversation_id)) if value is None]
        raise ArgumentsInvalid(
            f"It is not known whose memory is meant: give {' and '.join(missing)}, since the call's context has none."
        )
    return MemoryCompactionArguments(
        user_id=user_id, conversation_id=conversation_id, title=arguments.title, content=arguments.content
    ).to_wire()


def _job_that_goes_on(receipt: Mapping[str, Any]) -> str | None:
    """Nobody follows a job for which the caller has waited."""
    return None if "job" in receipt else str(receipt["jobId"])


def _receipt_of(job: Job) -> SchedulerReceipt:
    return SchedulerReceipt(job_id=job.id, worker_name=job.worker_name, job=job)


async def _at_its_end(job: Job, wait: float, operations: Operations) -> Job:
    """The job at its end, or when the time is over. It is accepted, whatever becomes of the waiting."""
    try:
        return await operations.wait_for_job(job.id, wait=wait)
    except HeadraceError as error:
        logger.warning("What became of job %s could not be waited for: %s", job.id, error)
        return job


async def _worker_for(kind: str, operations: Operations) -> WorkerDefinition:
    """The worker that does this kind of work."""
    definitions = await operations.worker_definitions()
    found = _of_kind(kind, definitions)
    if not found:
        # Its first engine may have started a moment ago.
        definitions = await operations.worker_definitions(fresh=True)
        found = _of_kind(kind, definitions)
    if len(found) > 1:
        found = _of_kind(kind, that_count(definitions, await operations.live_workers()))
    if not found:
        raise ToolRefused("kind_unknown", _unknown_kind(kind, definitions))
    if len(found) > 1:
        names = ", ".join(sorted(definition.name for definition in found))
        raise ToolRefused(
            "kind_ambiguous", f"Several workers do {kind!r}: {names}. Tell the operator: only one of them should run."
        )
    return found[0]


def _of_kind(kind: str, definitions: Mapping[str, WorkerDefinition]) -> list[WorkerDefinition]:
    return [definition for definition in definitions.values() if definition.kind == kind]


def _unknown_kind(kind: str, definitions: Mapping[str, WorkerDefinition]) -> str:
    known = sorted({definition.kind for definition in definitions.values() if definition.kind is not None})
    if not known:
        return f"Nothing can be scheduled, {kind!r} neither: no worker is known yet. Tell the operator to start an engine."
    return f"No worker does {kind!r}. The kinds are: {', '.join(known)}."
