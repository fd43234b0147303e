"""An append-only file outside of Kafka in which every process of a chaos run notes down what it did, and when.

Each note is one line and one write to a file that is open for appending, so that lines of many processes stand whole beside
each other, and what a process noted before it was killed is there. Times are nanoseconds of `CLOCK_BOOTTIME`, which is one
clock for all processes of a machine and goes on while one of them, or the machine, is stopped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import orjson

SECOND = 1_000_000_000

TickKind = Literal["begin", "tick", "end"]
SignalName = Literal["SIGKILL", "SIGTERM", "SIGSTOP", "SIGCONT"]


@dataclass(frozen=True, slots=True)
class Tick:
    """A sign of life of an attempt: its begin, every 50 ms, its end."""

    at: int
    kind: TickKind
    job: str
    attempt: int
    token: tuple[int, int]
    pid: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job's acceptance was acknowledged to whoever enqueued it."""

    at: int
    job: str
    worker: str
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Signalled:
    """A process was sent a signal, or lost its supervisor by one."""

    at: int
    pid: int
    name: SignalName


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault is over. `at` is when it began."""

    at: int
    kind: str
    seconds: float
    detail: str


@dataclass(frozen=True, slots=True)
class Poisoned:
    """A job is about to kill its own process."""

    at: int
    job: str
    pid: int


Entry = Tick | Accepted | Signalled | Fault | Poisoned


def now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Ledger:
    """The file, open for appending."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def note(self, entry: Entry) -> None:
        fields = [type(entry).__name__, *(getattr(entry, name) for name in entry.__slots__)]
        os.write(self._file, orjson.dumps(fields) + b"\n")


def read_ledger(path: Path) -> Iterator[Entry]:
    """Everything that was noted down, in the order of the file."""
    with path.open("rb") as file:
        for line in file:
            match orjson.loads(line):
                case ["Tick", at, kind, job, attempt, [epoch, number], pid]:
                    yield Tick(at, kind, job, attempt, (epoch, number), pid)
                case ["Accepted", *fields]:
                    yield Accepted(*fields)
                case ["Signalled", *fields]:
                    yield Signalled(*fields)
                case ["Fault", *fields]:
                    yield Fault(*fields)
                case ["Poisoned", *fields]:
                    yield Poisoned(*fields)
                case other:
                    raise ValueError(f"{path} has a line that nobody writes: {other!r}")
