"""The load of `headrace bench gateway`: what it counts as a call, and what as an error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from headrace.bench import gateway_load
from headrace.bench.gateway_load import Load, Measured, measure, percentile

BODY = b'{"ok":true,"scheduled":true}'
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\ncontent-type: application/json\r\n\r\n%b" % (len(BODY), BODY)


class Clock:
    """Takes the place of `time`: a millisecond passes by each request, and none by anything else."""

    requests = 0

    @classmethod
    def perf_counter(cls) -> float:
        return cls.requests / 1_000


@pytest.fixture(autouse=True)
def by_the_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured is over after so many requests, however long they take."""
    monkeypatch.setattr(gateway_load, "time", Clock)


@asynccontextmanager
async def serving(answers: Callable[[bytes], list[bytes]]) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that sends these pieces for each request, and the requests that it got."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                requests.append(head + await reader.readexactly(length))
                Clock.requests += 1
                for piece in answers(requests[-1]):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], requests


def load(port: int, *, agents: int = 3, seconds: float = 0.2, credentials: list[str] | None = None) -> Load:
    return Load(
        port=port,
        path="/tools/scheduler",
        bodies=[f'{{"agent":{number}}}' for number in range(agents)],
        credentials=credentials or [],
        warm_up=0.05,
        seconds=seconds,
        expected='"scheduled":true',
    )


async def measured(answers: Callable[[bytes], list[bytes]]) -> Measured:
    async with serving(answers) as (port, _):
        return await measure(load(port))


async def test_every_agent_calls_over_and_over_by_its_own_key_and_body() -> None:
    async with serving(lambda _: [GOOD]) as (port, requests):
        found = await measure(load(port, credentials=["key-0", "key-1", "key-2"]))
    assert found.errors == 0 and found.refusals == []
    assert 3 < found.calls < found.answered == len(requests)
    assert found.calls_per_second == pytest.approx(found.calls / 0.2)
    assert 0 < found.p50 <= found.p99
    assert found.last == BODY.decode()
    for number in range(3):
        own = [request for request in requests if b'{"agent":%d}' % number in request]
        assert len(own) > 1
        assert all(b"Authorization: Bearer key-%d\r\n" % number in request for request in own)


async def test_an_answer_that_comes_in_pieces_is_one() -> None:
    found = await measured(lambda _: [GOOD[:20], GOOD[20:-5], GOOD[-5:]])
    assert found.errors == 0 and found.calls > 0


@pytest.mark.parametrize(
    "answer",
    [GOOD.replace(b"200 OK", b"429 Too Many Requests"), GOOD.replace(b'"scheduled":true', b'"scheduled":null')],
    ids=["status", "body"],
)
async def test_any_other_answer_is_an_error(answer: bytes) -> None:
    turns = iter(range(1_000_000))
    found = await measured(lambda _: [answer if next(turns) == 7 else GOOD])
    assert found.errors == 1
    assert answer.decode() in found.refusals[0]


async def test_a_connection_that_is_closed_is_an_error() -> None:
    async with serving(lambda _: [GOOD]) as (port, _):
        pass
    with pytest.raises(OSError, match=str(port)):
        await measure(load(port))

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1", 0) as server:
        found = await measure(load(server.sockets[0].getsockname()[1]))
    assert (found.calls, found.errors) == (0, 3)
    assert "a connection was closed" in found.refusals[0]


def test_percentiles_are_values_that_were_measured() -> None:
    assert percentile([3.0], 99) == 3.0
    assert percentile([float(number) for number in range(100)], 99) == 99.0
    assert percentile([float(number) for number in range(1_000)], 50) == 500.0
