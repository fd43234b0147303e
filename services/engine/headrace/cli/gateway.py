"""`headrace gateway`: the tools gateway in this terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.common import BootstrapServers, NamespaceOption, errors_shown, log_to_stderr, settings_from
from headrace.runtime import run
from headrace.settings import Settings

if TYPE_CHECKING:
    from headrace_gateway import GatewayServer


def gateway(
    host: Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free one. [default: 8787]")
    ] = None,
    bootstrap_servers: BootstrapServers = None,
    namespace: NamespaceOption = None,
) -> None:
    """Run the tools gateway until Ctrl-C or SIGTERM; then answer what was accepted, and end."""
    # Here, as in every command that needs it: a web framework takes most of a second to import.
    from headrace_gateway import run_gateway

    with errors_shown():
        settings = with_address(settings_from(bootstrap_servers, namespace), host, port)
        log_to_stderr(settings)
        run(run_gateway(settings, started=_announce))


def with_address(settings: Settings, host: str | None, port: int | None) -> Settings:
    """The settings, with the address that the options give."""
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    return settings.model_copy(update={"gateway": settings.gateway.model_copy(update=given)})


def _announce(server: GatewayServer) -> None:
    typer.echo(f"The tools gateway answers at {server.url}; GET {server.url}/tools lists its tools. Ctrl-C ends it.")
