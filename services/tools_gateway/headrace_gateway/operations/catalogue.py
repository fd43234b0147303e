"""The list of all operations. Tests that prove isolation go through it, so that a new one cannot be left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from headrace_gateway.access import Scope

MethodT = TypeVar("MethodT", bound=Callable[..., Any])


class Effect(StrEnum):
    """What an operation does to what there is."""

    READ = "read"
    WRITE = "write"
    CANCEL = "cancel"
    SUBSCRIBE = "subscribe"


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that a principal can do.

    Attributes:
        name: as the audit names it.
        scope: without which it is refused.
    """

    name: str
    scope: Scope
    effect: Effect


OPERATIONS: dict[str, Operation] = {}


def operation(scope: Scope, effect: Effect) -> Callable[[MethodT], MethodT]:
    """Enters a method of `Operations` in the list under its own name. The method checks the scope itself, first of all."""

    def enter(method: MethodT) -> MethodT:
        name = method.__name__
        OPERATIONS[name] = Operation(name, scope, effect)
        return method

    return enter
