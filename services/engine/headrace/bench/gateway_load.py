"""The load of `headrace bench gateway`, in a process of its own: agents that call one server over and over, each when its last
call was answered.

    python -m headrace.bench.gateway_load < load.json

It speaks HTTP itself, with as little work as that takes: on a machine of two processors what it needs, the server lacks.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from headrace.runtime import run

_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = b"content-length:"
_PATIENCE_SECONDS = 30.0
_KINDS_OF_ERRORS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is to be done.

    Attributes:
        port: of the server, on this machine.
        bodies: one for each agent.
        credentials: likewise; none where nobody is asked for one.
        warm_up: seconds before those that are measured.
        seconds: how long it is measured.
        expected: a text that every answer has.
    """

    port: int
    path: str
    bodies: list[str]
    credentials: list[str]
    warm_up: float
    seconds: float
    expected: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What came of it.

    Attributes:
        calls: answered as they should be in the measured time.
        answered: the same in all of the time.
        errors: how many were not answered as they should be, in all of the time, with the first answers of these.
        p50: milliseconds.
        last: the newest good answer.
    """

    calls: int
    answered: int
    calls_per_second: float
    p50: float
    p99: float
    errors: int
    refusals: list[str]
    last: str


async def measure(load: Load) -> Measured:
    """Has all agents call until the time is over, and every answer is there.

    Raises:
        OSError: the server cannot be reached.
        TimeoutError: answers did not come within half a minute.
    """
    return await _Agents(load).call()


class _Agent(asyncio.Protocol):
    """One connection: it calls, waits for the whole answer, and calls again."""

    def __init__(self, request: bytes, agents: _Agents) -> None:
        self._request = request
        self._agents = agents
        self._received = b""
        self._called_at = 0.0
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def call(self) -> None:
        """Sends the next call."""
        self._called_at = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        head = received.find(_END_OF_HEAD)
        if head < 0 or len(received) < head + 4 + _body_length(received, head):
            self._received = received
            return
        self._received = b""
        if self._agents.answered(received, self._called_at):
            self.call()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._agents.left(exc)


class _Agents:
    """All agents, and what they have seen."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._expected = load.expected.encode()
        self._latencies: list[float] = []
        self._refusals: Counter[bytes] = Counter()
        self._last = b""
        self._answered = 0
        self._present = len(load.bodies)
        self._gone = asyncio.Event()
        self._measured_from = self._measured_until = 0.0

    async def call(self) -> Measured:
        loop, load = asyncio.get_running_loop(), self._load
        agents = [
            (await loop.create_connection(lambda request=request: _Agent(request, self), "127.0.0.1", load.port))[1]  # type: ignore[misc]
            for request in _requests(load)
        ]
        self._measured_from = time.perf_counter() + load.warm_up
        self._measured_until = self._measured_from + load.seconds
        for agent in agents:
            agent.call()
        async with asyncio.timeout(load.warm_up + load.seconds + _PATIENCE_SECONDS):
            await self._gone.wait()
        latencies = self._latencies or [0.0]
        return Measured(
            calls=len(self._latencies),
            answered=self._answered,
            calls_per_second=len(self._latencies) / load.seconds,
            p50=1000 * statistics.median(latencies),
            p99=1000 * percentile(latencies, 99),
            errors=self._refusals.total(),
            refusals=[answer.decode(errors="replace")[:500] for answer, _ in self._refusals.most_common(_KINDS_OF_ERRORS)],
            last=self._last.partition(_END_OF_HEAD)[2].decode(errors="replace"),
        )

    def answered(self, answer: bytes, called_at: float) -> bool:
        """Notes an answer; returns whether to call again."""
        now = time.perf_counter()
        if answer.startswith(b"HTTP/1.1 200 ") and self._expected in answer:
            self._last = answer
            self._answered += 1
            if self._measured_from <= now < self._measured_until:
                self._latencies.append(now - called_at)
        else:
            self._refusals[answer] += 1
        return now < self._measured_until

    def left(self, error: Exception | None) -> None:
        """A connection is closed."""
        if error is not None or time.perf_counter() < self._measured_until:
            self._refusals[f"a connection was closed: {error}".encode()] += 1
        self._present -= 1
        if not self._present:
            self._gone.set()


def percentile(values: Sequence[float], percent: int) -> float:
    """Of one value or more."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def _body_length(received: bytes, head: int) -> int:
    at = received.lower().find(_LENGTH, 0, head)
    return 0 if at < 0 else int(received[at + len(_LENGTH) : received.index(b"\r\n", at)])


def _requests(load: Load) -> list[bytes]:
    credentials = load.credentials or [""] * len(load.bodies)
    return [
        b"POST %b HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%bContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (
            load.path.encode(),
            load.port,
            f"Authorization: Bearer {credential}\r\n".encode() if credential else b"",
            len(body.encode()),
            body.encode(),
        )
        for body, credential in zip(load.bodies, credentials, strict=True)
    ]


if __name__ == "__main__":
    sys.stdout.buffer.write(orjson.dumps(asdict(run(measure(Load(**orjson.loads(sys.stdin.buffer.read())))))))
