"""`headrace bench`: measures engine, view and callers, each beside the bare client.

It uses the broker that is named, else the one that runs for this folder, else an ephemeral one of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import orjson
import typer
from rich.table import Table

from headrace.bench.engine import measure_engine
from headrace.bench.enqueue import measure_enqueue
from headrace.bench.failover import measure_failover
from headrace.bench.gateway import measure_gateway
from headrace.bench.latency import measure_latency
from headrace.bench.memory import measure_memory, table_of
from headrace.bench.recovery import measure_recovery
from headrace.bench.replay import measure_replay
from headrace.bench.view import measure_view
from headrace.bench.waiting import measure_waiting
from headrace.broker import BrokerRequest, LocalBrokerOptions, provide_broker
from headrace.cli.common import BootstrapServers, base_settings, errors_shown, log_to_stderr
from headrace.cli.listing import output_console
from headrace.kafka.log import KafkaLog
from headrace.runtime import run
from headrace.settings import Settings

application = typer.Typer(help="Measure how fast it is here, beside the bare client.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on the last line.")]
Say = Callable[[str], None]
Measurement = Callable[[Settings, Say], Awaitable[dict[str, Any]]]


@application.command()
def engine(
    jobs: Annotated[int, typer.Option(min=1_000, help="Jobs in the queue.")] = 300_000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, of which the median counts.")] = 3,
    bootstrap_servers: BootstrapServers = None,
    as_json: AsJson = False,
) -> None:
    """Jobs per second of one engine that drains a full queue."""
    _measure(
        "engine",
        lambda settings, say: measure_engine(settings, jobs=jobs, rounds=rounds, say=say),
        bootstrap_servers,
        as_json,
    )


@application.command()
def enqueue(
    seconds: Annotated[float, typer.Option(min=0.5, help="How long to enqueue one at a time.")] = 5.0,
    many: Annotated[int, typer.Option(min=1_000, help="Jobs to enqueue many at a time.")] = 50_000,
    bootstrap_servers: BootstrapServers = None,
    as_json: AsJson = False,
) -> None:
    """Acknowledged jobs per second of a caller, one at a time and many."""
    _measure(
        "enqueue",
        lambda settings, say: measure_enqueue(settings, seconds=seconds, many=many, say=say),
        bootstrap_servers,
        as_json,
    )


@application.command()
def gateway(
    agents: Annotated[int, typer.Option(min=1, max=2_000, help="Agents that call at the same time.")] = 200,
    seconds: Annotated[float, typer.Option(min=0.5, help="How long they call, in all rounds together.")] = 60.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, of which the median counts.")] = 6,
    view_jobs: Annotated[int, typer.Option(min=0, help="Measure it with so many jobs in its view, too.")] = 0,
    bootstrap_servers: BootstrapServers = None,
    as_json: AsJson = False,
) -> None:
    """Calls per second of `scheduler` through one gateway, and what each of its layers costs."""
    _measure(
        "gateway",
        lambda settings, say: measure_gateway(
            settings, agents=agents, seconds=seconds, rounds=rounds, view_jobs=view_jobs, say=say
        ),
        bootstrap_servers,
        as_json,
    )


@application.command()
def latency(
    jobs: Annotated[int, typer.Option(min=100, help="Jobs to enqueue.")] = 1_000,
    per_second: Annotated[float, typer.Option(min=1, help="Jobs per second.")] = 50.0,
    bootstrap_servers: BootstrapServers = None,
    as_json: AsJson = False,
) -> None:
    """Milliseconds from the call of `enqueue` to the start of the job."""
    _measure(
        "latency",
        lambda settings, say: measure_latency(settings, jobs=jobs, per_second=per_second, say=say),
        bootstrap_servers,
        as_json,
    )


@application.command()
def failover(
    rounds: Annotated[int, typer.Option(min=1, help="How often each of three engines is killed.")] = 2,
    per_second: Annotated[float, typer.Option(min=1, help="Jobs per second.")] = 30.0,
    grace: Annotated[float, typer.Option(min=0, help="Seconds that running jobs get when an engine is restarted.")] = 30.0,
    machine: Annotated[
        bool,
        typer.Option("--machine/--no-machine", help="Kill a supervisor with its engine, too; work goes on after a minute or so."),
    ] = True,
    bootstrap_servers: BootstrapServers = None,
    as_json: AsJson = False,
) -> None:
    """Seconds until work goes on when engines are restarted, or killed, or lost with their machine, under load."""
    _measure(
        "failover",
        lambda settings, say: measure_failover(
            settings, rounds=rounds, per_second=per_second, grace=grace, machine=machine, say=say
        ),
        bootstrap_servers,
        as_json,
    )


@application.command()
def view(
    jobs: Annotated[int, typer.Option(min=1_000, help="Jobs in the view.")] = 1_000_000,
    bootstrap_servers: BootstrapServers = None,
    as_json: AsJson = False,
) -> None:
    """Records per second that the view of jobs takes in, and milliseconds for a page of it."""

    async def measured(settings: Settings, say: Say) -> dict[str, Any]:
        log = KafkaLog(settings)
        try:
            return await measure_view(log, jobs=jobs, say=say)
        finally:
            await log.close()

    _measure("view", measured, bootstrap_servers, as_json)


@application.command()
def recovery(
    records: Annotated[
        int, typer.Option(min=1_000, help="Records after the checkpoint, and jobs beside the long one.")
    ] = 100_000,
    rounds: Annotated[int, typer.Option(min=1, help="How often to take over what has nothing to recover.")] = 5,
    bootstrap_servers: BootstrapServers = None,
    as_json: AsJson = False,
) -> None:
    """Milliseconds from the assignment of a partition until its jobs may start."""
    _measure(
        "recovery",
        lambda settings, say: measure_recovery(settings, records=records, rounds=rounds, say=say),
        bootstrap_servers,
        as_json,
    )


@application.command()
def waiting(
    jobs: Annotated[int, typer.Option(min=1, max=10_000, help="Jobs that run at once.")] = 10_000,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each waits.")] = 30.0,
    bootstrap_servers: BootstrapServers = None,
    as_json: AsJson = False,
) -> None:
    """Megabytes and seconds for thousands of jobs at once in one engine, each waiting as for a model's answer."""
    _measure(
        "waiting",
        lambda settings, say: measure_waiting(settings, jobs=jobs, seconds=seconds, say=say),
        bootstrap_servers,
        as_json,
    )


@application.command()
def replay(
    jobs: Annotated[int, typer.Option(min=1_000, help="Recorded jobs.")] = 100_000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, of which the median counts.")] = 3,
    bootstrap_servers: BootstrapServers = None,
    as_json: AsJson = False,
) -> None:
    """Recorded jobs per second that are scanned, and that are replayed in process."""
    _measure(
        "replay",
        lambda settings, say: measure_replay(settings, jobs=jobs, rounds=rounds, say=say),
        bootstrap_servers,
        as_json,
    )


@application.command()
def memory(as_json: AsJson = False) -> None:
    """How many of the facts that were listed by hand the summariser keeps. It needs no broker."""
    result = measure_memory()
    output_console(stderr=as_json).print(table_of(result))
    if as_json:
        typer.echo(orjson.dumps(result).decode())


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _measure(name: str, measurement: Measurement, bootstrap_servers: str | None, as_json: bool) -> None:
    console = output_console(stderr=as_json)
    with errors_shown():
        settings = base_settings(bootstrap_servers)
        log_to_stderr(settings, default="ERROR")
        request = BrokerRequest(options=LocalBrokerOptions(ephemeral=True), published=False, running_first=True)
        with provide_broker(settings, request) as broker:
            console.print(f"broker: {broker.description}")
            own = settings.model_copy(update={"bootstrap_servers": broker.bootstrap_servers})

            async def measured() -> dict[str, Any]:
                return await measurement(own, console.print)

            result = run(measured())
    table = Table("figure", "value", title=f"headrace bench {name}", title_justify="left")
    for figure, value in result.items():
        table.add_row(figure, _shown(value))
    console.print(table)
    if as_json:
        typer.echo(orjson.dumps(result).decode())
