"""The command `headrace`."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import headrace
from headrace.cli import (
    bench,
    broker,
    control,
    dead_letters,
    demo,
    dev,
    engine,
    export,
    gateway,
    inspect,
    keys,
    mcp,
    memory,
    removing,
    replay,
    replay_clean,
    replay_stream,
    schemas,
    settings,
    simulate,
    state,
    timeline,
)
from headrace.cli.common import exit_interrupted
from headrace.settings import unknown_variables


class _Commands(TyperGroup):
    """The commands; Ctrl-C ends one without a traceback where it does not put something in order first."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
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
    for name, nearest in unknown_variables().items():
        advice = f"did you mean {nearest}?" if nearest else "`headrace settings` lists those that are."
        typer.echo(f"Warning: {name} is set, and is no setting: {advice}", err=True)


@application.command()
def version() -> None:
    """Print the version."""
    typer.echo(headrace.__version__)


application.command("dev")(dev.dev)
application.command("engine")(engine.engine)
application.command("gateway")(gateway.gateway)
application.command("mcp")(mcp.mcp)
application.command("demo")(demo.demo)
application.command("job")(inspect.job)
inspect.jobs_application.command("cancel")(control.cancel)
inspect.workers_application.command("pause")(control.pause)
inspect.workers_application.command("resume")(control.resume)
inspect.workers_application.command("remove")(removing.remove)
application.add_typer(inspect.workers_application, name="workers")
application.add_typer(inspect.jobs_application, name="jobs")
application.command("timeline")(timeline.timeline)
application.command("state")(state.state)
application.command("export")(export.export)
application.add_typer(dead_letters.application, name="dead-letters")
application.add_typer(keys.application, name="keys")
application.add_typer(broker.application, name="broker")
application.add_typer(memory.application, name="memory")
replay.application.command("stream")(replay_stream.stream)
replay.application.command("clean")(replay_clean.clean)
application.add_typer(replay.application, name="replay")
application.add_typer(bench.application, name="bench")
application.command("simulate")(simulate.simulate_command)
application.command("schemas")(schemas.schemas)
application.command("settings")(settings.settings)


def main() -> None:
    """The entry point of the command."""
    application()


if __name__ == "__main__":
    main()
