"""Answers that are sent without h11: the connection goes on after them, or ends, as HTTP says."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h11
import orjson
import pytest

from headrace_gateway.access import ALL_SCOPES, Principal
from headrace_gateway.http.protocol import EnvelopeProtocol
from support.events import PATIENCE
from support.job_views import until
from support.served import Served, served
from support.written_jobs import Engines, WrittenLog

pytestmark = pytest.mark.usefixtures("quick")

KNOWN = {"ann": Principal(subject="ann", scopes=ALL_SCOPES)}
BODY = b'{"action": "list_workers"}'


def request(*headers: bytes, version: bytes = b"1.1", body: bytes = BODY) -> bytes:
    """A call of `worker_manager`."""
    lines = [b"Host: localhost", b"Authorization: Bearer ann", b"Content-Length: %d" % len(body), *headers]
    return b"POST /tools/worker_manager HTTP/%b\r\n%b\r\n\r\n%b" % (version, b"\r\n".join(lines), body)


class Connection:
    """A client's end of a connection: what comes back is read by h11, which knows no mercy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._parser = h11.Connection(h11.CLIENT)

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def answer(self) -> tuple[h11.Response, bytes]:
        """The next answer."""
        if self._parser.our_state is h11.DONE:
            self._parser.start_next_cycle()
        # What was sent is told to the parser in its own words.
        self._parser.send(h11.Request(method=b"POST", target=b"/", headers=[(b"host", b"localhost"), (b"content-length", b"0")]))
        self._parser.send(h11.EndOfMessage())
        head: h11.Response | None = None
        body = b""
        async with asyncio.timeout(PATIENCE):
            while type(event := self._parser.next_event()) is not h11.EndOfMessage:
                if event is h11.NEED_DATA:
                    self._parser.receive_data(await self._reader.read(65_536))
                elif isinstance(event, h11.Response):
                    head = event
                elif isinstance(event, h11.Data):
                    body += event.data
        assert head is not None
        return head, body

    async def end(self) -> bytes:
        """What comes up to the connection's end."""
        async with asyncio.timeout(PATIENCE):
            return self._parser.trailing_data[0] + await self._reader.read()


@asynccontextmanager
async def connected(gateway: Served) -> AsyncIterator[Connection]:
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()


def names(head: h11.Response) -> list[bytes]:
    return sorted(name for name, _ in head.headers)


async def test_an_answer_says_what_any_other_says(log: WrittenLog, engines: Engines, tmp_path: Path) -> None:
    async with served(log, tmp_path, KNOWN) as gateway, connected(gateway) as connection:
        connection.send(request())
        head, body = await connection.answer()
        connection.send(request(body=b"{}"))
        refused, _ = await connection.answer()
    assert (head.status_code, refused.status_code) == (200, 400)
    assert names(head) == names(refused)
    assert {b"content-length", b"content-type", b"date"} <= set(names(head))
    assert dict(head.headers)[b"content-type"] == b"application/json"
    assert [each["name"] for each in orjson.loads(body)["data"]["workers"]]


async def test_requests_that_came_together_are_answered_one_after_another(
    log: WrittenLog, engines: Engines, tmp_path: Path
) -> None:
    bodies = [BODY, b"{}", BODY, b'{"action": "list_jobs"}']
    async with served(log, tmp_path, KNOWN) as gateway, connected(gateway) as connection:
        together = b"".join(request(body=body) for body in bodies)
        # The last one comes in two parts.
        connection.send(together[:-5])
        answers = [await connection.answer() for _ in bodies[:-1]]
        connection.send(together[-5:])
        answers.append(await connection.answer())
    assert [head.status_code for head, _ in answers] == [200, 400, 200, 200]
    assert ["workers" in body.decode() for _, body in (answers[0], answers[2], answers[3])] == [True, True, False]
    assert "jobs" in orjson.loads(answers[3][1])["data"]


@pytest.mark.parametrize("asked", [request(b"Connection: close"), request(version=b"1.0")], ids=["close", "version-1-0"])
async def test_a_connection_that_is_to_end_ends(log: WrittenLog, engines: Engines, tmp_path: Path, asked: bytes) -> None:
    async with served(log, tmp_path, KNOWN) as gateway, connected(gateway) as connection:
        connection.send(asked)
        head, body = await connection.answer()
        assert await connection.end() == b""
    assert head.status_code == 200
    assert dict(head.headers)[b"connection"] == b"close"
    assert orjson.loads(body)["ok"] is True


async def test_a_caller_who_asks_before_sending_is_invited(log: WrittenLog, engines: Engines, tmp_path: Path) -> None:
    asked = request(b"Expect: 100-continue")
    async with served(log, tmp_path, KNOWN) as gateway:
        host, _, port = gateway.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(asked.removesuffix(BODY))
            async with asyncio.timeout(PATIENCE):
                invited = await reader.readuntil(b"\r\n\r\n")
                writer.write(BODY)
                head = await reader.readuntil(b"\r\n\r\n")
        finally:
            writer.close()
    assert invited.startswith(b"HTTP/1.1 100 ")
    assert head.startswith(b"HTTP/1.1 200 ")


async def test_nothing_of_a_request_stays_behind(
    log: WrittenLog, engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of calls a second would have the garbage collector stop the gateway again and again."""
    serve, cycles = EnvelopeProtocol._serve, []

    async def serve_noted(protocol: EnvelopeProtocol, *arguments: Any) -> None:
        cycles.append(weakref.ref(protocol.cycle))
        await serve(protocol, *arguments)

    monkeypatch.setattr(EnvelopeProtocol, "_serve", serve_noted)
    gc.collect()
    gc.disable()
    try:
        async with served(log, tmp_path, KNOWN) as gateway, connected(gateway) as connection:
            for body in (BODY, b"{}", BODY, b"{}"):
                connection.send(request(body=body))
                await connection.answer()
            # The connection has the last one still.
            await until(lambda: [cycle() for cycle in cycles[:-1]] == [None, None, None])
    finally:
        gc.enable()


async def test_bytes_that_are_no_request_behind_an_answer_are_told_so(log: WrittenLog, engines: Engines, tmp_path: Path) -> None:
    async with served(log, tmp_path, KNOWN) as gateway, connected(gateway) as connection:
        connection.send(request() + b"no request at all\r\n\r\n")
        head, _ = await connection.answer()
        rest = await connection.end()
    assert head.status_code == 200
    assert rest.startswith(b"HTTP/1.1 400 ")
