"""Exceptions that resist whoever looks at them, as classes of users do by mistake; and workers that raise them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

from headrace import JobContext, Retry, RetryPolicy
from support.memory_engines import GatedWorker


class Delegating(Exception):
    """Asks what it wraps for all that it does not have, and has not been given that."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.response, name)


class Guarded(Exception):
    """Shows nothing of itself."""

    def __getattribute__(self, name: str) -> Any:
        raise LookupError(f"no {name}")


class Masked(Exception):
    @property
    def __class__(self) -> Any:
        raise RuntimeError("no class")

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise AttributeError("the class of an exception stays")


class Unnamed(type):
    def __getattribute__(cls, name: str) -> Any:
        if name == "__qualname__":
            raise RuntimeError("no name")
        return super().__getattribute__(name)


class WithoutName(Exception, metaclass=Unnamed):
    pass


class OddText(str):
    def encode(self, *_: Any, **__: Any) -> NoReturn:
        raise RuntimeError("no bytes")


class TellsOddly(Exception):
    def __str__(self) -> str:
        return OddText("odd")


class TellsNothing(Exception):
    def __str__(self) -> str:
        raise SystemExit("no text")

    __repr__ = __str__


class Endless(Exception):
    def __init__(self) -> None:
        self.__cause__ = self
        self.__notes__ = [object()]  # type: ignore[list-item]


class CodedRetry(Retry):
    """As anybody writes it: the base is not asked."""

    def __init__(self, code: int) -> None:
        self.status_code = code


class NeverRetry(Retry):
    after = float("nan")

    def __init__(self) -> None:
        Exception.__init__(self)


class WordRetry(NeverRetry):
    after = "soon"  # type: ignore[assignment]


class Quits(SystemExit):
    def __repr__(self) -> str:
        raise LookupError("no text")


class Cancels(asyncio.CancelledError):
    def __repr__(self) -> str:
        raise LookupError("no text")


def _deep_group() -> BaseException:
    group: Exception = ValueError("innermost")
    for _ in range(3_000):
        group = ExceptionGroup("one", [group])
    return group


NASTY: dict[str, Callable[[], BaseException]] = {
    "delegating": Delegating,
    "guarded": Guarded,
    "masked": Masked,
    "without-name": WithoutName,
    "long-name": type("Long" * 500_000, (Exception,), {}),
    "odd-text": TellsOddly,
    "no-text": TellsNothing,
    "surrogate-text": lambda: ValueError("\ud800" * 10),
    "long-text": lambda: ValueError("x" * 2_000_000),
    "endless": Endless,
    "deep-group": _deep_group,
    "coded-retry": lambda: CodedRetry(3),
    "never-retry": NeverRetry,
    "word-retry": WordRetry,
    "quits": Quits,
    "cancels": Cancels,
    "stops": StopIteration,
    "stops-async": StopAsyncIteration,
    "leaves": GeneratorExit,
    "interrupts": KeyboardInterrupt,
}


class NastyWorker(GatedWorker):
    """Its jobs raise what their names say, in the event loop. Others complete."""

    retry = RetryPolicy(max_attempts=2, initial=1, jitter=0)

    async def run(self, args: dict[str, Any], ctx: JobContext) -> Any:
        if args.get("waits"):
            await asyncio.sleep(0.01)
        return raise_nasty(args)


class NastyInThread(NastyWorker):
    def run(self, args: dict[str, Any], ctx: JobContext) -> Any:
        return raise_nasty(args)


class NastyInProcess(NastyInThread):
    executor = "process"

    def __init__(self) -> None:
        super().__init__(concurrency=1)


def raise_nasty(args: dict[str, Any]) -> Any:
    if (make := NASTY.get(args["name"])) is not None:
        raise make()
    return {"name": args["name"]}
