"""`headrace state`: how every job stood at a moment."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import nlargest
from typing import Annotated, Any

import typer
from rich.text import Text

from headrace.cli.common import AsJson, BootstrapServers, NamespaceOption, errors_shown, log_to_stderr, opened, settings_from
from headrace.cli.listing import Listing, Row
from headrace.cli.moments import parse_moment
from headrace.cli.timeline import EVENT_STYLES
from headrace.codec import encode_foreign
from headrace.core.timestamps import format_timestamp, to_milliseconds
from headrace.replay.inspection.state import JobAt, states_at
from headrace.replay.recorded.log_history import open_history
from headrace.replay.recorded.wanted import parse_fields
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
        question = _Question(moment, tuple(worker or ()), parse_fields(where or []))
        if as_json:
            with closing(_Spool()) as spool:
                asyncio.run(_read(settings, question, spool.add))
                _print_json(spool.newest_first())
            return
        found = _Found(limit)
        asyncio.run(_read(settings, question, found.add))
    _print(found, moment)


@dataclass(frozen=True, slots=True)
class _Question:
    at: int
    workers: Sequence[str]
    fields: dict[str, str]


class _Found:
    """The newest jobs, as many as are shown, and how many there are by status."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: list[JobAt] = []
        self.counts: Counter[str] = Counter()

    def add(self, batch: Sequence[JobAt]) -> None:
        """Takes in jobs, in any order."""
        self.counts.update(each.status for each in batch)
        self._jobs += batch
        if len(self._jobs) > 2 * self._limit:
            self._jobs = nlargest(self._limit, self._jobs, key=_age)

    @property
    def jobs(self) -> list[JobAt]:
        """The newest first."""
        return sorted(self._jobs, key=_age, reverse=True)[: self._limit]


class _Spool:
    """All jobs, as JSON, in a file without a name: there may be more of them than memory has room for."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect("", isolation_level=None)
        # Nothing of it is to outlive this process.
        self._connection.execute("PRAGMA journal_mode=OFF")
        self._connection.execute("CREATE TABLE jobs (accepted_at INTEGER, id TEXT, told BLOB)")

    def add(self, batch: Sequence[JobAt]) -> None:
        """Takes in jobs, in any order."""
        self._connection.execute("BEGIN")
        self._connection.executemany(
            "INSERT INTO jobs VALUES (?, ?, ?)", [(*_age(each), encode_foreign(each.to_wire())) for each in batch]
        )
        self._connection.execute("COMMIT")

    def newest_first(self) -> Iterator[bytes]:
        """The JSON of each."""
        return (told for (told,) in self._connection.execute("SELECT told FROM jobs ORDER BY accepted_at DESC, id DESC"))

    def close(self) -> None:
        """Gives up the file."""
        self._connection.close()


async def _read(settings: Settings, question: _Question, take: Callable[[Sequence[JobAt]], None]) -> None:
    async with opened(open_history(settings), settings) as history:
        states = states_at(history, question.at, workers=question.workers, fields=question.fields)
        async with aclosing(states) as batches:
            async for batch in batches:
                take(batch)


def _age(each: JobAt) -> tuple[int, str]:
    return each.job.accepted_at, each.job.id


def _print_json(jobs: Iterable[bytes]) -> None:
    """A list, printed as it is read: it may be long."""
    separator = "["
    for each in jobs:
        typer.echo(separator + each.decode(), nl=False)
        separator = ",\n "
    typer.echo("[]" if separator == "[" else "]")


def _print(found: _Found, moment: int) -> None:
    jobs, total = found.jobs, sum(found.counts.values())
    states_listing(jobs, moment).print()
    if total:
        typer.echo(", ".join(f"{count} {status}" for status, count in sorted(found.counts.items())) + ".")
    if total > len(jobs):
        left_out = "1 older one is" if total - len(jobs) == 1 else f"{total - len(jobs)} older ones are"
        typer.echo(f"{left_out} not shown: give a greater --limit, --where, or --json.", err=True)


def states_listing(jobs: Iterable[JobAt], moment: int) -> Listing:
    """How jobs stood at a moment, for the terminal."""
    title = f"Jobs at {format_timestamp(moment)}, newest first"
    columns = ("job", "accepted", "status", "told by", "worker")
    return Listing(title, columns, "No job had been accepted that matches.", [_row(each) for each in jobs])


def _row(each: JobAt) -> Row:
    state: dict[str, Any] = dict(each.state)
    status, attempt = each.status, state["attempt"]
    cells = (
        each.job.id,
        format_timestamp(each.job.accepted_at),
        Text(f"{status} ({attempt})" if attempt else status, style=EVENT_STYLES.get(status, "")),
        Text(each.origin, style="dim" if each.origin == "log" else "cyan"),
        str(state["workerName"]),
    )
    error = state.get("error")
    notes = [Text(f"{error['type']}: {error['message']}", style="red")] if error else []
    if each.job.damaged:
        notes.append(Text(f"The newest record of then cannot be read; before it, it was {state['status']}.", style="red"))
    return Row(cells, notes)
