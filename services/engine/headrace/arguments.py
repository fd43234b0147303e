"""Checks a job's arguments against the schema that its worker published, before the job is accepted."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import orjson

from headrace.core.texts import cut_in_the_middle, unknown_name
from headrace.errors import ArgumentsInvalid
from headrace.models import WorkerDefinition

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError

_logger = logging.getLogger(__name__)

Check = Callable[[Any], bool]
"""True: the arguments of a job fit. False: nobody knows."""

_MOST_PROBLEMS = 5
_LONGEST_PROBLEM = 200
_LONGEST_NAMES = 1_000
_MOST_VALIDATORS = 256
_LARGEST_IN_LOOP_BYTES = 16_384
# What a worker publishes that takes any JSON object.
_ANYTHING: tuple[dict[str, Any], ...] = ({}, {"type": "object"})


class PublishedSchemas:
    """Keeps two validators for each schema that a worker published: one that takes a microsecond at most, and one that
    has the words for what is wrong, and the last word.

    Formats (`date-time`, `email`, ...) are not checked here: the worker's own model has the last word, when the job runs.
    """

    def __init__(self) -> None:
        self._validators: OrderedDict[bytes, Draft202012Validator | None] = OrderedDict()
        # By the name of the worker, with the definition from which it was made.
        self._quick: OrderedDict[str, tuple[WorkerDefinition, Check | None]] = OrderedDict()

    def certainly_fit(self, definition: WorkerDefinition, args: Sequence[dict[str, Any]]) -> bool:
        """Whether it is plain to see that `check` would let arguments through. False says nothing."""
        known = self._quick.get(definition.name)
        if known is None or known[0] is not definition:
            known = self._quick[definition.name] = definition, _quick(definition)
            if len(self._quick) > _MOST_VALIDATORS:
                self._quick.popitem(last=False)
        check = known[1]
        if check is None:
            return False
        try:
            encoded = orjson.dumps(args)
        except TypeError:
            return False
        # As the worker will read them, and no deeper than that is done.
        return len(encoded) <= _LARGEST_IN_LOOP_BYTES and all(map(check, orjson.loads(encoded)))

    async def check(self, definition: WorkerDefinition, args: Sequence[dict[str, Any]]) -> None:
        """Checks the arguments of jobs for the worker. A worker that published no usable schema takes any: it will look itself.

        Raises:
            ArgumentsInvalid: some do not fit, or are no JSON; the message names each place and what is wrong there.
        """
        if self.certainly_fit(definition, args):
            return
        validator = self._validator_of(definition)
        if validator is None:
            return
        try:
            encoded = orjson.dumps(args)
        except TypeError as error:
            raise ArgumentsInvalid(f"Arguments must be JSON: {error}.") from None
        # As the worker will read them: what JSON has no kind of its own for, such as a time, is a text by then.
        plain = orjson.loads(encoded)
        if len(encoded) > _LARGEST_IN_LOOP_BYTES:
            # Half a second for 60,000 small objects: other callers need not wait for it.
            problems = await asyncio.to_thread(_problems, validator, plain, definition.name)
        else:
            problems = _problems(validator, plain, definition.name)
        if problems:
            raise ArgumentsInvalid(f"Arguments of {definition.name} are wrong: {'; '.join(problems)}.")

    def _validator_of(self, definition: WorkerDefinition) -> Draft202012Validator | None:
        schema = definition.arguments_schema
        if schema in _ANYTHING:
            return None
        key = orjson.dumps(schema)
        if key in self._validators:
            self._validators.move_to_end(key)
            return self._validators[key]
        made = self._validators[key] = _validator(schema, definition.name)
        if len(self._validators) > _MOST_VALIDATORS:
            self._validators.popitem(last=False)
        return made


def _anything(_: dict[str, Any]) -> bool:
    return True


def _quick(definition: WorkerDefinition) -> Check | None:
    """The quick validator of what a worker published; None where the other one is to be asked: it is not the same everywhere."""
    # Imported by those who check something, as the other one is.
    import jsonschema_rs

    schema = definition.arguments_schema
    if schema in _ANYTHING:
        return _anything
    # Of a schema that is none the other one tells, and takes anything; and the two have expressions of different kinds.
    if b'"pattern' in orjson.dumps(schema) or _validator(schema, definition.name) is None:
        return None
    try:
        return jsonschema_rs.Draft202012Validator(schema, validate_formats=False, retriever=_nothing_else).is_valid
    except ValueError:
        return None


def _nothing_else(uri: str) -> Any:
    raise LookupError(f"{uri} is not fetched")


def _validator(schema: dict[str, Any], worker: str) -> Draft202012Validator | None:
    # Imported by those who check something: it takes a tenth of a second, and most commands never do.
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from referencing import Registry

    try:
        Draft202012Validator.check_schema(schema)
    except (SchemaError, RecursionError) as error:
        _logger.warning("The arguments' schema of %s is no JSON Schema: %s", worker, error)
        return None
    # A registry of its own: by default a reference to another host would be fetched.
    return Draft202012Validator(schema, registry=Registry())


def _problems(validator: Draft202012Validator, many: list[dict[str, Any]], worker: str) -> list[str]:
    from referencing.exceptions import Unresolvable

    found: list[str] = []
    try:
        for number, args in enumerate(many):
            root = "args" if len(many) == 1 else f"args[{number}]"
            found += (_describe(error, root) for error in islice(validator.iter_errors(args), _MOST_PROBLEMS - len(found)))
            if len(found) >= _MOST_PROBLEMS:
                break
    except (Unresolvable, RecursionError) as error:
        _logger.warning("The arguments' schema of %s cannot be followed: %s", worker, error)
        return []
    return found


def _describe(error: ValidationError, root: str) -> str:
    """Where it is and what is wrong, in short."""
    nearest = _nearest(error)
    place = ".".join(str(part) for part in (root, *nearest.absolute_path))
    if (unknown := _unknown_names(nearest)) is not None:
        return f"{place}: {cut_in_the_middle(unknown, _LONGEST_NAMES)}"
    message = nearest.message
    if len(message) > _LONGEST_PROBLEM:
        # The value, which may be long, stands first in these messages, and what is wrong with it last.
        message = f"{message[:60]} … {message[-(_LONGEST_PROBLEM - 60) :]}"
    return f"{place}: {message}"


def _unknown_names(error: ValidationError) -> str | None:
    """What is told of names that a closed object does not know; None for any other problem."""
    described = error.schema
    if error.validator != "additionalProperties" or not isinstance(described, dict) or "patternProperties" in described:
        return None
    known, instance = described.get("properties", {}), cast("dict[str, Any]", error.instance)
    strange = [name for name in instance if name not in known]
    told = [f"{cut_in_the_middle(name, _LONGEST_PROBLEM)!r}: {unknown_name(name, known)}" for name in strange[:_MOST_PROBLEMS]]
    return ", ".join(told) + (f", and {more:,} more" if (more := len(strange) - len(told)) else "")


def _nearest(error: ValidationError) -> ValidationError:
    """What to tell when no alternative fits. Where one of two alternatives is null, the other one was meant."""
    from jsonschema.exceptions import best_match

    while error.validator in ("anyOf", "oneOf"):
        meant = [inner for inner in error.context or () if (inner.validator, inner.validator_value) != ("type", "null")]
        if len({inner.relative_schema_path[0] for inner in meant}) != 1:
            return error
        error = best_match(meant) or error
    return error
