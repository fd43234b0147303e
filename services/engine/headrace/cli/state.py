"""`headrace state`: how every job stood at a moment."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from heapq import nlargest
from typing import Annotated, Any

import orjson
import typer
from rich.text import Text

from headrace.cli.common import AsJson, BootstrapServers, NamespaceOption, errors_shown, log_to_stderr, opened, settings_from
from headrace.cli.listing import Listing, Row
from headrace.cli.moments import parse_moment
from headrace.cli.timeline import EVENT_STYLES
from headrace.core.timestamps import format_timestamp, to_milliseconds
from headrace.replay.log_history import open_history
from headrace.replay.state import JobAt, states_at
from headrace.replay.wanted import parse_fields
from headrace.settings import Settings


def state(
    at: Annotated[str, typer.Option("--at", help="The moment: 2026-01-31T09:15:00Z, or 2h for two hours ago, or now.")],
    worker: Annotated[list[str] | None, typer.Option("--worker", help="Only jobs of this worker; may be given again.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", help="Only jobs that had this then: status=running,userId=ada; any field by its path."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="List at most so many, the newest; --json has all.")] = 50,
    bootstrap_servers: BootstrapServers = None,
    namespace: NamespaceOption = None,
    as_json: AsJson = False,
) -> None:
    """Tell how every job stood at a moment, of those that are in the log.

    Each line says `log` where the record is there that says so, and `snapshot` where it is rebuilt from a later one.
    """
    with errors_shown():
        settings = settings_from(bootstrap_servers, namespace)
        log_to_stderr(settings, default="WARNING")
        moment = to_milliseconds(parse_moment(at, datetime.now(UTC), "--at"))
        question = _Question(moment, tuple(worker or ()), parse_fields(where or []), None if as_json else limit)
        found = asyncio.run(_read(settings, question))
    if as_json:
        _print_json(found.jobs)
    else:
        _print(found, moment)


@dataclass(frozen=True, slots=True)
class _Question:
    at: int
    workers: Sequence[str]
    fields: dict[str, str]
    limit: int | None


@dataclass(slots=True)
class _Found:
    """The jobs, the newest first, no more than are shown; and how many there are by status."""

    jobs: list[JobAt] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


async def _read(settings: Settings, question: _Question) -> _Found:
    found = _Found()
    async with opened(open_history(settings), settings) as history:
        states = states_at(history, question.at, workers=question.workers, fields=question.fields)
        async with aclosing(states) as batches:
            async for batch in batches:
                found.counts.update(str(each.state["status"]) for each in batch)
                found.jobs += batch
                if question.limit is not None and len(found.jobs) > 2 * question.limit:
                    found.jobs = nlargest(question.limit, found.jobs, key=_age)
    found.jobs = sorted(found.jobs, key=_age, reverse=True)[: question.limit]
    return found


def _age(each: JobAt) -> tuple[int, str]:
    return each.job.accepted_at, each.job.id


def _print_json(jobs: Iterable[JobAt]) -> None:
    """A list, printed as it is made: it may be long."""
    separator = "["
    for each in jobs:
        typer.echo(separator + orjson.dumps(each.to_wire()).decode(), nl=False)
        separator = ",\n "
    typer.echo("[]" if separator == "[" else "]")


def _print(found: _Found, moment: int) -> None:
    states_listing(found.jobs, moment).print()
    total = sum(found.counts.values())
    if total:
        typer.echo(", ".join(f"{count} {status}" for status, count in sorted(found.counts.items())) + ".")
    if total > len(found.jobs):
        typer.echo(f"{total - len(found.jobs)} older ones are not shown: give a greater --limit, --where, or --json.", err=True)


def states_listing(jobs: Iterable[JobAt], moment: int) -> Listing:
    """How jobs stood at a moment, for the terminal."""
    title = f"Jobs at {format_timestamp(moment)}, newest first (times in UTC)"
    columns = ("job", "accepted", "status", "attempt", "told by", "worker")
    return Listing(title, columns, "No job had been accepted that matches.", [_row(each) for each in jobs])


def _row(each: JobAt) -> Row:
    state: dict[str, Any] = dict(each.state)
    status = str(state["status"])
    accepted = format_timestamp(each.job.accepted_at).replace("T", " ").removesuffix("Z")
    told_by = Text(each.origin, style="dim" if each.origin == "log" else "cyan")
    cells = (
        each.job.id,
        accepted,
        Text(status, style=EVENT_STYLES.get(status, "")),
        str(state["attempt"]),
        told_by,
        str(state["workerName"]),
    )
    error = state.get("error")
    notes = [Text(f"{error['type']}: {error['message']}", style="red")] if error else []
    return Row(cells, notes)
