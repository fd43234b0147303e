"""The command `headrace`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar

import typer

import headrace
from headrace.cli.common import exit_interrupted
from headrace.cli.on_demand import GroupOnDemand


class _Commands(GroupOnDemand):
    """The commands; Ctrl-C ends one without a traceback where it does not put something in order first."""

    places: ClassVar = {
        "dev": "headrace.cli.dev:dev",
        "engine": "headrace.cli.engine:engine",
        "gateway": "headrace.cli.gateway:gateway",
        "mcp": "headrace.cli.mcp:mcp",
        "demo": "headrace.cli.demo:demo",
        "job": "headrace.cli.inspect:job",
        "timeline": "headrace.cli.timeline:timeline",
        "state": "headrace.cli.state:state",
        "export": "headrace.cli.export:export",
        "simulate": "headrace.cli.simulate:simulate_command",
        "schemas": "headrace.cli.schemas:schemas",
        "settings": "headrace.cli.settings:settings",
        "workers": "headrace.cli.inspect:workers_application",
        "jobs": "headrace.cli.inspect:jobs_application",
        "dead-letters": "headrace.cli.dead_letters:application",
        "keys": "headrace.cli.keys:application",
        "broker": "headrace.cli.broker:application",
        "memory": "headrace.cli.memory:application",
        "replay": "headrace.cli.replay_commands:application",
        "bench": "headrace.cli.bench:application",
    }

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        with _interruption_told():  # options that are read may import a library, too
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        with _interruption_told():
            return super().invoke(ctx)


@contextmanager
def _interruption_told() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        exit_interrupted()


application = typer.Typer(
    name="headrace",
    cls=_Commands,
    help="Background jobs for AI agents, on Kafka or Redpanda.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(headrace.__version__)
        raise typer.Exit


@application.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Background jobs for AI agents, on Kafka or Redpanda."""
    if "--supervised" in sys.argv:
        return  # the command that became its supervisor has said so
    if not any(name.startswith("HEADRACE_") for name in os.environ):
        return  # and settings need not be imported to say so
    from headrace.settings import unknown_variables

    for name, nearest in unknown_variables().items():
        advice = f"did you mean {nearest}?" if nearest else "`headrace settings` lists those that are."
        typer.echo(f"Warning: {name} is set, and is no setting: {advice}", err=True)


@application.command()
def version() -> None:
    """Print the version."""
    typer.echo(headrace.__version__)


def main() -> None:
    """The entry point of the command."""
    application()


if __name__ == "__main__":
    main()
