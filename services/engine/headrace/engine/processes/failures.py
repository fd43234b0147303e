"""An exception on its way from a child process to its engine, where its class may not be known."""

from __future__ import annotations

import builtins
from typing import Any, Final

import orjson

from headrace import errors
from headrace.core.retry import NAMES_ATTRIBUTE, qualified_name
from headrace.engine.outcome import TOLD_ATTRIBUTE, describe_error, resisting
from headrace.errors import JobFailed, Retry

_MOST_NAMES: Final = 50
_LONGEST_NAME: Final = 500
# Raised in a coroutine they would say something of that; and a group cannot be made without what is in it.
_MEAN_SOMETHING_ELSE: Final = (GeneratorExit, StopIteration, StopAsyncIteration, BaseExceptionGroup)


def tell(error: BaseException) -> bytes:
    """What is said of an exception: its description, and the names of its class and their bases."""
    try:
        return orjson.dumps(_told(error))
    except BaseException as resistance:  # to look at it runs code of the user's own
        return orjson.dumps(_told(resisting(error, resistance)))


def _told(error: BaseException) -> dict[str, Any]:
    names = [qualified_name(kind) for kind in type(error).__mro__ if issubclass(kind, BaseException)]
    told: dict[str, Any] = {
        "described": describe_error(error),
        "names": [name for name in names if len(name) <= _LONGEST_NAME][:_MOST_NAMES],
    }
    if isinstance(error, Retry):
        told["after"] = error.after
    return told


def told_error(told: dict[str, Any]) -> BaseException:
    """An exception that is told apart, described and retried as the one that was raised in the child.

    Its class is made for it: it has the name of the original's, and is derived from the nearest of its bases that is Python's own
    or headrace's.
    """
    described, names = told["described"], told["names"]
    module, _, name = described["type"].rpartition(".")
    base = next((kind for each in names if (kind := _known(each)) is not None), JobFailed)
    body = {"__module__": module or "builtins", "__qualname__": name, "__str__": lambda _: described["message"]}
    kind = type(name, (base,), body)
    made: BaseException = kind.__new__(kind)  # what its `__init__` asks for, nobody knows here
    made.args = (described["message"],)
    if isinstance(made, Retry):
        made.after = told.get("after")
    setattr(made, NAMES_ATTRIBUTE, tuple(names))
    setattr(made, TOLD_ATTRIBUTE, described)
    return made


def _known(name: str) -> type[BaseException] | None:
    module, _, plain = name.rpartition(".")
    found = getattr(builtins if not module else errors if module == errors.__name__ else None, plain, None)
    if not isinstance(found, type) or not issubclass(found, BaseException) or issubclass(found, _MEAN_SOMETHING_ELSE):
        return None
    return found
