"""The command `headrace`."""

from __future__ import annotations

import typer

import headrace
from headrace.cli import bench, broker, demo, dev, engine, gateway, inspect, memory, schemas, settings

application = typer.Typer(
    name="headrace",
    help="Background jobs for AI agents, on Kafka or Redpanda.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@application.callback()
def root() -> None:
    """Background jobs for AI agents, on Kafka or Redpanda."""


@application.command()
def version() -> None:
    """Print the version."""
    typer.echo(headrace.__version__)


application.command("dev")(dev.dev)
application.command("engine")(engine.engine)
application.command("gateway")(gateway.gateway)
application.command("demo")(demo.demo)
application.command("jobs")(inspect.jobs)
application.command("job")(inspect.job)
application.command("workers")(inspect.workers)
application.add_typer(broker.application, name="broker")
application.add_typer(memory.application, name="memory")
application.add_typer(bench.application, name="bench")
application.command("schemas")(schemas.schemas)
application.command("settings")(settings.settings)


def main() -> None:
    """The entry point of the command."""
    application()


if __name__ == "__main__":
    main()
