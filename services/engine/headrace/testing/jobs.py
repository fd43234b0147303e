"""Jobs for tests of workers, made without an engine or a client."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from headrace.models import DEFAULT_TENANT, CallContext, Job
from headrace.runtime import wall_clock
from headrace.submission import Arguments, ordering_key_of, plain_arguments, prepare, shared_fields
from headrace.worker import AbstractWorker


def job_for(
    worker: AbstractWorker[Any] | type[AbstractWorker[Any]],
    args: Arguments | None = None,
    ctx: CallContext | Mapping[str, Any] | None = None,
    *,
    tenant: str = DEFAULT_TENANT,
) -> Job:
    """A job as `Client.enqueue` would have it accepted, to be given to `process_job`. It is written nowhere.

    Args:
        worker: the worker, or its class.
        args: its arguments, as JSON or as the worker's model; none when left out.
        ctx: where the request comes from: `userId`, `conversationId`, `source`, and fields of your own.

    Raises:
        ArgumentsInvalid: the arguments do not fit the worker's model, or they or the context are no JSON.
        PayloadTooLarge: arguments and context are over the limit.
        ConfigurationError: the worker cannot be published, as one without a name.
    """
    made = worker() if isinstance(worker, type) else worker
    definition, plain = made.definition(), plain_arguments({} if args is None else args, made)
    key = ordering_key_of(definition, plain, made.arguments_model)
    shared = shared_fields(tenant, ctx, key, None, None)
    return prepare(definition, plain, shared, key, (definition.name, 1), made=(wall_clock(), os.urandom(10))).job
