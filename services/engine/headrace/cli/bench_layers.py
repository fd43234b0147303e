"""The gateway with some of its layers, for `headrace bench gateway` to see what each of them costs.

    python -m headrace.cli.bench_layers LAYER

It serves until SIGTERM or SIGINT, like `headrace gateway`, with the settings of the environment. No view is open.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import AsyncExitStack

from headrace.audit import AuditTrail
from headrace.client import Client
from headrace.runtime import run
from headrace.settings import Settings, load_settings
from headrace_gateway import Gateway, GatewayServer
from headrace_gateway.access import TrailAudit, authenticator_for

TOOL = "tool"
"""The tool alone: what it checks, and the record that it writes. Nobody is asked for a key."""
KEY = "key"
"""With a key for each call."""
AUDIT = "audit"
"""With the audit, too."""


def _settings(layer: str) -> Settings:
    settings = load_settings()
    gateway = settings.gateway.model_copy(update={"authentication": "none" if layer == TOOL else "required"})
    return settings.model_copy(update={"gateway": gateway})


async def _serve(layer: str) -> None:
    settings = _settings(layer)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(settings))
        audit = TrailAudit(AuditTrail(settings)) if layer == AUDIT else None
        gateway = await stack.enter_async_context(Gateway(settings, client, None, authenticator_for(settings), audit))
        server = await stack.enter_async_context(GatewayServer(settings, client=client, gateway=gateway))
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        await ended.wait()


if __name__ == "__main__":
    run(_serve(sys.argv[1]))
