"""Jobs for tests of workers, made without an engine or a client."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import orjson

from headrace.abstract_worker import AbstractWorker
from headrace.engine.outcome import encode_result
from headrace.errors import ConfigurationError
from headrace.models import DEFAULT_TENANT, CallContext, Job
from headrace.runtime import wall_clock
from headrace.submission import Arguments, ordering_key_of, plain_arguments, prepare, shared_fields


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
        ConfigurationError: that is no worker, but its name perhaps, or one that cannot be published, as one without a name.
    """
    # Tests need no types: it may be anything.
    if not issubclass(worker if isinstance(worker, type) else type(worker), AbstractWorker):
        raise ConfigurationError(
            f"job_for takes a worker, or its class, and {worker!r:.200} is none: give what `@worker` has made, or a subclass of"
            " AbstractWorker; the name of a worker is not enough, as the test runs its code."
        )
    made = worker() if isinstance(worker, type) else worker
    definition, plain = made.definition(), plain_arguments({} if args is None else args, made)
    key = ordering_key_of(definition, plain, made.arguments_model)
    shared = shared_fields(tenant, ctx, key, None, None)
    return prepare(definition, plain, shared, key, (definition.name, 1), made=(wall_clock(), os.urandom(10))).job


def result_as_json(returned: Any) -> Any:
    """What an engine makes of that which `process_job` returned: the job's result, as `Client.get_job` has it.

    Raises:
        ResultInvalid: it is no JSON, as a coroutine for which the worker did not wait.
        ResultTooLarge: it is over the limit.
    """
    encoded = encode_result(returned)
    return None if encoded is None else orjson.loads(orjson.dumps(encoded))
