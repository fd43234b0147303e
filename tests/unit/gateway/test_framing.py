"""Requests that say in two ways where their bodies end: what stands before a gateway might go by the other one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from headrace_gateway.access import ALL_SCOPES, Principal
from support.access import RememberedAudit
from support.events import PATIENCE
from support.served import Served, served
from support.written_jobs import WrittenLog

pytestmark = pytest.mark.usefixtures("quick")

KNOWN = {"ann": Principal(subject="ann", scopes=ALL_SCOPES)}
HIDDEN = b"POST /tools/worker_manager HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ann\r\n\r\n"


async def sent(gateway: Served, path: str, framing: bytes) -> bytes:
    """All that comes back, up to the connection's end, for a request behind whose body another one is hidden."""
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = b"0\r\n\r\n" + HIDDEN
    try:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ann\r\n".encode()
        writer.write(head + framing.replace(b"SIZE", b"%d" % len(body)) + b"\r\n" + body)
        writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("path", ["/tools/scheduler", "/memory/trip/entries", "/mcp", "/healthz"])
@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: SIZE\r\nTransfer-Encoding: chunked\r\n",
        b"transfer-encoding: Chunked\r\nCONTENT-LENGTH: SIZE\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
    ],
)
async def test_who_says_it_in_two_ways_is_refused_and_comes_no_further(
    log: WrittenLog, tmp_path: Path, path: str, framing: bytes
) -> None:
    audit = RememberedAudit()
    async with served(log, tmp_path, KNOWN, audit=audit) as gateway:
        answers = await sent(gateway, path, framing)
    assert (answers.count(b"HTTP/1.1 "), answers[:12]) == (1, b"HTTP/1.1 400"), answers
    assert b"request_invalid" in answers
    assert audit.outcomes == ["request_invalid"]


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 5\r\nContent-Length: SIZE\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: identity, chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Content-Length: +5\r\n",
    ],
)
async def test_who_says_it_in_no_way_that_counts_is_refused(log: WrittenLog, tmp_path: Path, framing: bytes) -> None:
    async with served(log, tmp_path, KNOWN) as gateway:
        answers = await sent(gateway, "/tools/scheduler", framing)
    assert (answers.count(b"HTTP/1.1 "), answers[9:10]) == (1, b"4"), answers
