"""`headrace export`: what the replay of a span needs, in a file."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from headrace.cli.common import (
    AsJson,
    BootstrapServers,
    NamespaceOption,
    arguments_as_options,
    errors_shown,
    exit_interrupted,
    log_to_stderr,
    opened,
    settings_from,
)
from headrace.cli.moments import parse_span
from headrace.core.texts import counted
from headrace.replay.exports.exporting import Exported, export_span
from headrace.replay.history import Wanted
from headrace.replay.recorded.log_history import open_history
from headrace.replay.recorded.wanted import parse_fields
from headrace.runtime import StopRequested, StopSignals
from headrace.settings import Settings


def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="The file: JSON lines, compressed by gzip.")],
    start: Annotated[
        str, typer.Option("--from", help="Jobs accepted since then: 2026-01-31T09:15:00Z, or 2h for two hours ago.")
    ],
    end: Annotated[str, typer.Option("--to", help="Jobs accepted before then; as --from.")] = "now",
    worker: Annotated[list[str] | None, typer.Option("--worker", help="Only jobs of this worker; may be given again.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", help="Only jobs that have this: status=failed,userId=ada; any field by its path."),
    ] = None,
    redact: Annotated[
        list[str] | None,
        typer.Option(
            "--redact", help="Leave out the value of this field: args.password, recordings.model.key; may be given again."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    bootstrap_servers: BootstrapServers = None,
    namespace: NamespaceOption = None,
    as_json: AsJson = False,
) -> None:
    """Write the jobs of a span to a file, with all that their replay needs: `headrace replay ... --file`, without the cluster.

    With each job go its newest snapshot, and what it recorded; then come the definitions of the workers, and the memory of the
    conversations that the jobs are about.
    """
    with errors_shown():
        wanted = Wanted(span=parse_span(start, end), workers=tuple(worker or ()), fields=parse_fields(where or []))
        settings = settings_from(bootstrap_servers, namespace)
        log_to_stderr(settings, default="WARNING")
        try:
            with arguments_as_options(overwrite="--force", redact="--redact"):
                exported = asyncio.run(_unless_stopped(_write(settings, wanted, output, redact or [], force=force)))
        except StopRequested:
            exit_interrupted()
    for warning in exported.warnings:
        typer.echo(f"Warning: {warning}", err=True)
    if as_json:
        typer.echo(orjson.dumps({**exported.header.to_wire(), "redactions": dict(exported.redactions)}).decode())
    else:
        _print(exported, output)


async def _unless_stopped(work: Coroutine[Any, Any, Exported]) -> Exported:
    """Does the work, which a signal ends in order: nothing is left of a file that is not whole."""
    with StopSignals() as signals:
        return await signals.unless_requested(work)


async def _write(settings: Settings, wanted: Wanted, output: Path, redact: list[str], *, force: bool) -> Exported:
    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} jobs"), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        async with opened(open_history(settings), settings) as history:
            return await export_span(
                history,
                wanted,
                output,
                redact=redact,
                overwrite=force,
                watch=lambda jobs: progress.update(task, completed=jobs),
            )


def _print(exported: Exported, output: Path) -> None:
    counts = exported.header.counts
    size = output.stat().st_size
    jobs, workers, recordings = (counted(counts[kind], kind) for kind in ("job", "worker", "recording"))
    memory = counted(counts["memory"], "record")
    typer.echo(f"{jobs}, {workers}, {recordings} and {memory} of memory are in {output} ({size / 1e6:.1f} MB).")
    for path, count in exported.redactions.items():
        typer.echo(f"  {path}: redacted {counted(count, 'time')}")
