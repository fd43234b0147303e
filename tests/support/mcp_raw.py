"""Requests of the Model Context Protocol as bytes, without a client that would mend them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2

from headrace_gateway.mcp.tasks import TASKS
from support.mcp_bench import MODERN

ACCEPT = "application/json, text/event-stream"


def modern_request(method: str, params: dict[str, Any], *, tasks: bool = False) -> tuple[dict[str, str], dict[str, Any]]:
    """Headers and body of a request of the newer era."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {"extensions": {TASKS: {}}} if tasks else {},
    }
    headers = {"accept": ACCEPT, "content-type": "application/json", "mcp-protocol-version": MODERN, "mcp-method": method}
    if isinstance(name := params.get("name", params.get("uri")), str):
        headers["mcp-name"] = name
    return headers, {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}


async def post_lines(url: str, request: tuple[dict[str, str], dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    """The messages that come on the stream which answers a request."""
    headers, body = request
    async with (
        httpx2.AsyncClient(trust_env=False, timeout=60) as http,
        http.stream("POST", url, headers=headers, content=json.dumps(body).encode()) as response,
    ):
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))
