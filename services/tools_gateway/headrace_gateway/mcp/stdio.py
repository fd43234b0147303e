"""The protocol over standard input and output: a host starts the process, and is the only one that it serves."""

from __future__ import annotations

from mcp.server.stdio import stdio_server

from headrace_gateway.access import Arrival
from headrace_gateway.gateway import Gateway
from headrace_gateway.mcp.service import build_server


async def serve_stdio(gateway: Gateway, credential: str | None) -> None:
    """Serves whoever is at the other end until they close it.

    Args:
        credential: says who that is.

    Raises:
        CredentialInvalid: nobody knows who it is.
    """
    server = build_server(gateway, await gateway.authenticate(credential, Arrival("stdio")))
    async with stdio_server() as (received, sent):
        await server.run(received, sent, server.create_initialization_options())
