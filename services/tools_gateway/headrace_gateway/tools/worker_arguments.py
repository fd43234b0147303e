"""Checks a job's arguments against the schema that its worker published, before the job is accepted."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from itertools import islice
from typing import Any

import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from referencing import Registry
from referencing.exceptions import Unresolvable

from headrace import ArgumentsInvalid, WorkerDefinition

logger = logging.getLogger(__name__)

_MOST_PROBLEMS = 5
_LONGEST_PROBLEM = 200
_MOST_VALIDATORS = 256
_LARGEST_IN_LOOP_BYTES = 16_384


class WorkerArguments:
    """Keeps a validator for each published schema.

    Formats (`date-time`, `email`, ...) are not checked here: the worker's own model has the last word, when the job runs.
    """

    def __init__(self) -> None:
        self._validators: OrderedDict[bytes, Draft202012Validator | None] = OrderedDict()

    async def check(self, definition: WorkerDefinition, args: dict[str, Any]) -> None:
        """Checks the arguments of a job for the worker. A worker that published no usable schema takes any: it will look itself.

        Raises:
            ArgumentsInvalid: they do not fit; the message names each place and what is wrong there.
        """
        validator = self._validator_of(definition)
        if validator is None:
            return
        if len(orjson.dumps(args)) > _LARGEST_IN_LOOP_BYTES:
            # Half a second for 60,000 small objects: other callers need not wait for it.
            problems = await asyncio.to_thread(_problems, validator, args, definition.name)
        else:
            problems = _problems(validator, args, definition.name)
        if problems:
            raise ArgumentsInvalid(f"Arguments of {definition.name} are wrong: {'; '.join(problems)}.")

    def _validator_of(self, definition: WorkerDefinition) -> Draft202012Validator | None:
        key = orjson.dumps(definition.arguments_schema)
        if key in self._validators:
            self._validators.move_to_end(key)
            return self._validators[key]
        made: Draft202012Validator | None = None
        try:
            Draft202012Validator.check_schema(definition.arguments_schema)
            # A registry of its own: by default a reference to another host would be fetched.
            made = Draft202012Validator(definition.arguments_schema, registry=Registry())
        except (SchemaError, RecursionError) as error:
            logger.warning("The arguments' schema of %s is no JSON Schema: %s", definition.name, error)
        self._validators[key] = made
        if len(self._validators) > _MOST_VALIDATORS:
            self._validators.popitem(last=False)
        return made


def _problems(validator: Draft202012Validator, args: dict[str, Any], worker: str) -> list[str]:
    try:
        return [_describe(error) for error in islice(validator.iter_errors(args), _MOST_PROBLEMS)]
    except (Unresolvable, RecursionError) as error:
        logger.warning("The arguments' schema of %s cannot be followed: %s", worker, error)
        return []


def _describe(error: ValidationError) -> str:
    """Where it is and what is wrong, in short."""
    nearest = _nearest(error)
    place = ".".join(str(part) for part in ("args", *nearest.absolute_path))
    message = nearest.message
    if len(message) > _LONGEST_PROBLEM:
        # The value, which may be long, stands first in these messages, and what is wrong with it last.
        message = f"{message[:60]} … {message[-(_LONGEST_PROBLEM - 60) :]}"
    return f"{place}: {message}"


def _nearest(error: ValidationError) -> ValidationError:
    """What to tell when no alternative fits. Where one of two alternatives is null, the other one was meant."""
    while error.validator in ("anyOf", "oneOf"):
        meant = [inner for inner in error.context or () if (inner.validator, inner.validator_value) != ("type", "null")]
        if len({inner.relative_schema_path[0] for inner in meant}) != 1:
            return error
        error = best_match(meant) or error
    return error
