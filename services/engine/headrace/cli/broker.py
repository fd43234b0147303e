"""`headrace broker`: a Kafka in this terminal, for as long as it is wanted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from headrace.broker import BrokerRequest, LocalBroker, LocalBrokerOptions, OwnedBroker, fetch_local_broker
from headrace.broker.cluster import NodeState
from headrace.broker.configuration import MOST_NODES
from headrace.broker.control import ask
from headrace.broker.discovery import BrokerNote, note_path, read_note
from headrace.cli.common import StopNow, base_settings, errors_shown, interruptible_broker, log_to_stderr
from headrace.errors import BrokerNotConfigured, LocalBrokerError
from headrace.settings import Settings

ALIVE_CHECK_SECONDS = 1.0
POLL_SECONDS = 0.05
END_SECONDS = 60.0

NodeNumber = Annotated[int, typer.Option("--node", min=1, help="Number of the node, from 1.")]

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
    nodes: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_NODES,
            help="Nodes of the cluster; with 3, any one may be away. [default: as the data have it, else 1]",
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes the last one or any free one.")] = 0,
    way: Annotated[
        Way | None,
        typer.Option("--with", help="Start one in this way, whatever KAFKA_BOOTSTRAP_SERVERS says. [default: local]"),
    ] = None,
    image: Annotated[Image, typer.Option(help="What runs in the container of `--with docker`.")] = Image.redpanda,
) -> None:
    """Run a broker in this terminal until Ctrl-C; other commands in this folder find it by themselves.

    The other commands below look at that broker from another terminal, and stop, kill and start its nodes one by one.
    """
    if context.invoked_subcommand is not None:
        return
    with errors_shown():
        settings = base_settings()
        log_to_stderr(settings)
        request = BrokerRequest(
            kind=way.value if way else None,
            data_directory=data_directory,
            image=image.value,
            options=LocalBrokerOptions(nodes=nodes, port=port, ephemeral=ephemeral),
        )
        _serve(settings, request)


@application.command()
def fetch() -> None:
    """Fetch Apache Kafka and make its ahead-of-time cache, so that later starts are quick and need no network."""
    with errors_shown():
        typer.echo("Fetching Apache Kafka and making its ahead-of-time cache: about 20 s, once ...")
        directory = fetch_local_broker(base_settings().cache_directory)
        typer.echo(f"All that a local broker needs is in {directory}.")


@application.command()
def status() -> None:
    """Tell which broker runs for this folder, and how its nodes are doing."""
    with errors_shown():
        note = _note()
        states = ask(note, "states")
        typer.echo(f"{note.kind}, run by process {note.pid}, its data in {note.data_directory or 'a temporary folder'}")
        _tell(states)


@application.command()
def start(node: NodeNumber) -> None:
    """Start a node again that was stopped or killed."""
    _change("start", node)


@application.command()
def stop(node: Annotated[int | None, typer.Option(min=1, help="Stop this node alone.")] = None) -> None:
    """Stop one node in order; without --node the whole broker, and the command that runs it."""
    if node is not None:
        _change("stop", node)
        return
    with errors_shown():
        note = _note()
        ask(note, "end")
        deadline = time.monotonic() + END_SECONDS
        while read_note(base_settings()) == note:
            if time.monotonic() >= deadline:
                raise LocalBrokerError(f"The process {note.pid} was asked to end, and still does so after {END_SECONDS:g} s.")
            time.sleep(POLL_SECONDS)
        typer.echo("The broker has ended.")


@application.command()
def kill(node: NodeNumber) -> None:
    """Kill a node by SIGKILL, as a crash would."""
    _change("kill", node)


def _change(action: Literal["start", "stop", "kill"], node: int) -> None:
    with errors_shown():
        _tell(ask(_note(), action, node))


def _note() -> BrokerNote:
    """What this folder knows of its broker."""
    settings = base_settings()
    note = read_note(settings)
    if note is None:
        raise BrokerNotConfigured(f"No broker runs for this folder ({note_path(settings)}). Start one with `headrace broker`.")
    return note


def _tell(states: Sequence[NodeState]) -> None:
    for each in states:
        if each.pid is None:
            how = "does not run, as was asked for" if each.on_request else "has ended by itself"
        else:
            how = f"{'serves' if each.serving else 'runs and does not serve yet'}, process {each.pid}"
        typer.echo(f"node {each.number} at {each.address}: {how}")


def _serve(settings: Settings, request: BrokerRequest) -> None:
    """Provide the broker, say which it is, and stay until a signal or its end."""
    try:
        with interruptible_broker(settings, request) as (broker, stopped):
            typer.echo(broker.description)
            if not isinstance(broker, OwnedBroker):
                typer.echo("There is nothing to start.")
                return
            _show(settings, broker)
            known_dead: set[int] = set()
            while not stopped.wait(ALIVE_CHECK_SECONDS):
                if not broker.running:
                    typer.echo("The broker ended by itself.", err=True)
                    raise typer.Exit(1)
                known_dead = _tell_of_the_dead(broker, known_dead)
    except StopNow:
        pass
    typer.echo("The broker has ended.")


def _tell_of_the_dead(broker: OwnedBroker, known: set[int]) -> set[int]:
    """Says once of each node that it has ended by itself while others go on; those that have."""
    if not isinstance(broker, LocalBroker):
        return known
    dead = broker.cluster.ended_by_themselves()
    for number in sorted(dead - known):
        typer.echo(f"Node {number} ended by itself. Start it again with: headrace broker start --node {number}", err=True)
    return dead


def _show(settings: Settings, broker: OwnedBroker) -> None:
    typer.echo(f"address: {broker.bootstrap_servers}")
    if broker.published:
        typer.echo(f"found by other commands in this folder, by {note_path(settings)}; Ctrl-C ends it")
    else:
        typer.echo("found by its address alone: other commands in this folder find the broker that ran before; Ctrl-C ends it")
