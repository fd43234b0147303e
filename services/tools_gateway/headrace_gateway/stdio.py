"""The gateway as a process that a host starts for itself, and with which it speaks over standard input and output."""

from __future__ import annotations

from headrace import Client, Settings
from headrace_gateway.gateway import gateway_for
from headrace_gateway.mcp import serve_stdio
from headrace_gateway.tools import ToolRegistry


async def run_stdio(settings: Settings, *, tools: ToolRegistry | None = None) -> None:
    """Serves the Model Context Protocol until standard input ends.

    Args:
        settings: their `api_key` says who the host is.
        tools: the tools it offers; `scheduler` and `worker_manager` when left out.

    Raises:
        BrokerError: the broker cannot be reached.
        CredentialInvalid: nobody knows who the host is.
    """
    key = settings.api_key
    async with Client(settings, view=True) as client, gateway_for(settings, client, tools) as gateway:
        await serve_stdio(gateway, None if key is None else key.get_secret_value())
