"""Whoever sends, or reads, too slowly is let go: a connection costs something, and a stranger needs no credential for one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from headrace_gateway.access import ALL_SCOPES, Principal
from headrace_gateway.http import protocol
from headrace_gateway.mcp import endpoint
from support.served import Served, served
from support.written_jobs import Engines, WrittenLog

pytestmark = pytest.mark.usefixtures("quick")

KNOWN = {"ann": Principal(subject="ann", scopes=ALL_SCOPES)}
LOOK_SECONDS = 0.2
PATIENCE = 20.0


@asynccontextmanager
async def connected(gateway: Served, limit: int = 65_536) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=limit)
    try:
        yield reader, writer
    finally:
        writer.close()


async def dripped_until_cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, drop: bytes) -> bytes:
    """What was answered, though a little more is sent again and again."""
    answered = asyncio.create_task(reader.read())
    async with asyncio.timeout(PATIENCE):
        while not answered.done():
            try:
                writer.write(drop)
                await writer.drain()
            except ConnectionError:
                break
            await asyncio.wait([answered], timeout=0.02)
        try:
            return await answered
        except ConnectionError:
            return b""


@pytest.mark.parametrize("start", [b"", b"POST /tools/scheduler HTTP/1.1\r\nHost: localhost\r\n"])
async def test_a_head_that_does_not_come_to_its_end(
    log: WrittenLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setattr(protocol, "LOOK_SECONDS", LOOK_SECONDS)
    async with served(log, tmp_path, KNOWN) as gateway, connected(gateway) as (reader, writer):
        writer.write(start)
        assert await dripped_until_cut(reader, writer, b"X-A: b\r\n" if start else b"") == b""


async def test_a_body_that_was_answered_already(log: WrittenLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "LOOK_SECONDS", LOOK_SECONDS)
    async with served(log, tmp_path, KNOWN) as gateway, connected(gateway) as (reader, writer):
        writer.write(b"POST /tools/scheduler HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
        assert b"unauthenticated" in await reader.readuntil(b"}}")
        await dripped_until_cut(reader, writer, b" ")


async def test_an_answer_that_nobody_reads(
    log: WrittenLog, engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "LOOK_SECONDS", LOOK_SECONDS)
    engines.enqueue("a", args={"to": ["x" * 400_000]})
    async with served(log, tmp_path, KNOWN) as gateway, connected(gateway, limit=1) as (_, writer):
        request = b"GET /jobs/a HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ann\r\n\r\n"
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                for _ in range(20):
                    writer.write(request)
                while True:
                    writer.write(b"GET")
                    await writer.drain()
                    await asyncio.sleep(0.02)


async def test_who_is_served_is_not_cut(
    log: WrittenLog, engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is looked at twice before its answer is there.
    monkeypatch.setattr(protocol, "LOOK_SECONDS", 0.4)
    engines.define(kind="digest")
    async with served(log, tmp_path, KNOWN) as gateway, gateway.http("ann") as client:
        call = {"kind": "digest", "args": {"to": ["x"]}, "wait": 1}
        assert (await client.post("/tools/scheduler", json=call)).status_code == 200


async def test_a_body_for_the_protocol_that_does_not_come(
    log: WrittenLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "BODY_SECONDS", 0.2)
    async with served(log, tmp_path, KNOWN) as gateway, connected(gateway) as (reader, writer):
        writer.write(b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ann\r\nContent-Length: 9\r\n\r\n{")
        async with asyncio.timeout(PATIENCE):
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 400") and b"send it faster" in answer
