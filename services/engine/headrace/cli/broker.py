"""`headrace broker`: a Kafka in this terminal, for as long as it is wanted."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from headrace.broker import BrokerRequest, LocalBrokerOptions, OwnedBroker, fetch_local_broker
from headrace.broker.discovery import note_path
from headrace.cli.common import StopNow, base_settings, errors_shown, interruptible_broker, log_to_stderr
from headrace.settings import Settings

ALIVE_CHECK_SECONDS = 1.0

application = typer.Typer(
    name="broker",
    help="Run a Kafka broker on this machine, or fetch what it needs.",
    invoke_without_command=True,
    no_args_is_help=False,
)


class Way(StrEnum):
    """Where a broker is taken from."""

    local = "local"
    docker = "docker"


class Image(StrEnum):
    """What runs in a container."""

    redpanda = "redpanda"
    kafka = "kafka"


@application.callback()
def run(
    context: typer.Context,
    data_directory: Annotated[
        Path | None, typer.Option(help="Where a local broker keeps its data. [default: .headrace/broker]")
    ] = None,
    ephemeral: Annotated[bool, typer.Option("--ephemeral", help="Throw the data away at the end.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes the last one or any free one.")] = 0,
    way: Annotated[
        Way | None,
        typer.Option("--with", help="Start one in this way, whatever KAFKA_BOOTSTRAP_SERVERS says. [default: local]"),
    ] = None,
    image: Annotated[Image, typer.Option(help="What runs in the container of `--with docker`.")] = Image.redpanda,
) -> None:
    """Run a broker in this terminal until Ctrl-C; other commands in this folder find it by themselves."""
    if context.invoked_subcommand is not None:
        return
    with errors_shown():
        settings = base_settings()
        log_to_stderr(settings)
        request = BrokerRequest(
            kind=way.value if way else None,
            data_directory=data_directory,
            image=image.value,
            options=LocalBrokerOptions(port=port, ephemeral=ephemeral),
        )
        _serve(settings, request)


@application.command()
def fetch() -> None:
    """Fetch Apache Kafka and make its ahead-of-time cache, so that later starts are quick and need no network."""
    with errors_shown():
        typer.echo("Fetching Apache Kafka and making its ahead-of-time cache: about 20 s, once ...")
        directory = fetch_local_broker(base_settings().cache_directory)
        typer.echo(f"All that a local broker needs is in {directory}.")


def _serve(settings: Settings, request: BrokerRequest) -> None:
    """Provide the broker, say which it is, and stay until a signal or its end."""
    try:
        with interruptible_broker(settings, request) as (broker, stopped):
            typer.echo(broker.description)
            if not isinstance(broker, OwnedBroker):
                typer.echo("There is nothing to start.")
                return
            _show(settings, broker)
            while not stopped.wait(ALIVE_CHECK_SECONDS):
                if not broker.running:
                    typer.echo("The broker ended by itself.", err=True)
                    raise typer.Exit(1)
    except StopNow:
        pass
    typer.echo("The broker has ended.")


def _show(settings: Settings, broker: OwnedBroker) -> None:
    typer.echo(f"address: {broker.bootstrap_servers}")
    if broker.published:
        typer.echo(f"found by other commands in this folder, by {note_path(settings)}; Ctrl-C ends it")
    else:
        typer.echo("found by its address alone: other commands in this folder find the broker that ran before; Ctrl-C ends it")
