"""What a job's question to the outside raised: written down, and raised again in a replay so that `except` takes the same branch.

Nothing is imported by a name that stands in the log: the class is looked for among the modules that the worker has loaded. Of one
that is not of Python's own an object is made past its `__init__`, whose arguments nobody knows.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Final, TypeGuard

import orjson

from headrace.core.retry import qualified_name
from headrace.core.snapshots import shorten
from headrace.errors import BrokerError
from headrace.replay_errors import RecordedError

_LONGEST_TYPE: Final = 1024
_LONGEST_MESSAGE: Final = 4 * 1024
_LONGEST_ARGUMENTS: Final = 4 * 1024
_PLAIN: Final = (str, int, float, bool, type(None))


def is_recorded(error: BaseException) -> bool:
    """Whether it is an answer from outside. To be cancelled, or to have no brokers, is none: it interrupts the attempt."""
    return isinstance(error, Exception) and not isinstance(error, BrokerError)


def encode_failure(error: BaseException) -> bytes:
    """The JSON of type and message of an exception and, where they are plain, of the arguments by which it was made."""
    told: dict[str, Any] = {
        "type": _shortened(qualified_name(type(error)), _LONGEST_TYPE),
        "message": _shortened(_text_of(error), _LONGEST_MESSAGE),
    }
    arguments = _plain_arguments(error)
    if arguments is not None:
        told["args"] = orjson.Fragment(arguments)
    return orjson.dumps(told)


def decode_failure(value: bytes) -> Exception:
    """An exception for what was written down: of the class that it had, with the text that it had.

    One of Python's own has its arguments, too, if they were plain. One of a library or of the user has no other attributes than
    its text. Where no module that is loaded has the class it is a `RecordedError`.
    """
    told = orjson.loads(value)
    told = told if isinstance(told, Mapping) else {}
    name, message = str(told.get("type", "")), str(told.get("message", ""))
    kind = _loaded(name)
    if kind is None:
        return _named(RecordedError, name)(name, message)
    arguments = told.get("args")
    if kind.__module__ == "builtins":
        for each in (arguments if isinstance(arguments, list) else (), (message,)):
            made = _made(kind, each, message)
            if made is not None:
                return made
    return _past_its_init(kind, message) or _named(RecordedError, name)(name, message)


def _loaded(name: str) -> type[Exception] | None:
    """The class of that name in a module that is loaded."""
    if "." not in name:
        own = getattr(builtins, name, None)
        return own if _is_exception(own) else None
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        module = sys.modules.get(".".join(parts[:count]))
        if not isinstance(module, ModuleType):
            continue
        found: Any = vars(module).get(parts[count])
        for part in parts[count + 1 :]:
            found = vars(found).get(part) if isinstance(found, type) else None
        return found if _is_exception(found) and qualified_name(found) == name else None
    return None


def _is_exception(found: Any) -> TypeGuard[type[Exception]]:
    return isinstance(found, type) and issubclass(found, Exception)


def _made(kind: type[Exception], arguments: Any, message: str) -> Exception | None:
    try:
        made = kind(*arguments)
        return made if str(made) == message and type(made) is kind else None
    except Exception:  # it wants other arguments
        return None


def _past_its_init(kind: type[Exception], message: str) -> Exception | None:
    """An object of a class that is named like `kind`, and inherits from it, with the text alone."""
    try:
        remade = type(kind.__name__, (kind,), {"__init__": _nothing, "__str__": lambda _: message, "__reduce__": _not_copied})
        remade.__module__, remade.__qualname__ = kind.__module__, kind.__qualname__
        made: Exception = kind.__new__(remade)
        made.args = (message,)
    except Exception:  # the class lets nobody inherit, or be made so
        return None
    return made


def _nothing(*_: Any, **__: Any) -> None:
    """In place of an `__init__` whose arguments nobody knows."""


def _not_copied(_: Any) -> Any:
    raise TypeError("what a replay raises again is not copied")


def _named(kind: type[RecordedError], name: str) -> type[RecordedError]:
    """The same class under another name, so that whatever writes the error down names what it stands for."""
    module, _, own = name.rpartition(".")
    named = type(own or kind.__name__, (kind,), {})
    if own:
        named.__module__ = module or "builtins"
    return named


def _plain_arguments(error: BaseException) -> bytes | None:
    try:
        if not all(type(each) in _PLAIN for each in error.args):
            return None
        encoded = orjson.dumps(list(error.args))
    except Exception:  # `args` may be a property of the user's own, or hold what is no JSON
        return None
    return encoded if len(encoded) <= _LONGEST_ARGUMENTS else None


def _text_of(error: BaseException) -> str:
    try:
        return str.__str__(str(error))
    except Exception:  # an exception of the user's own, whose text cannot be made
        return ""


def _shortened(text: str, limit: int) -> str:
    return shorten(text.encode(errors="replace").decode(), limit)
