"""`headrace timeline`: everything that is known of one job, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from headrace.cli.common import (
    AsJson,
    BootstrapServers,
    NamespaceOption,
    errors_shown,
    log_to_stderr,
    opened,
    plain,
    settings_from,
)
from headrace.cli.listing import Listing, Row
from headrace.codec import encode_foreign
from headrace.core.timestamps import format_timestamp
from headrace.replay.log_history import open_history
from headrace.replay.steps import MISSING, Change
from headrace.replay.timeline import Line, Relative, Timeline, timeline_of
from headrace.settings import Settings

EVENT_STYLES: Final[Mapping[str, str]] = {
    "completed": "green",
    "failed": "red",
    "dead-letter": "red",
    "retrying": "yellow",
    "interrupted": "yellow",
    "cancelled": "magenta",
    "cancel-requested": "magenta",
}
_CHANGE_STYLES: Final[Mapping[str, str]] = {"error": "red", "result": "green"}
_LONGEST_VALUE: Final = 80
# What other columns say, or what changes with every record.
_TOLD_ELSEWHERE: Final = frozenset({"status", "updatedAt", "sequence", "attempt", "attempts", "schemaVersion", "finishedAt"})


def timeline(
    job_id: Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")],
    bootstrap_servers: BootstrapServers = None,
    namespace: NamespaceOption = None,
    as_json: AsJson = False,
) -> None:
    """Tell everything that is known of a job, in order: each record of it, what it changed, and the jobs that came of it.

    Each line says `log` where the record is there, and `snapshot` where compaction has removed it and a later one tells of it.
    """
    with errors_shown():
        settings = settings_from(bootstrap_servers, namespace)
        log_to_stderr(settings, default="WARNING")
        found = asyncio.run(_read(settings, job_id))
    if as_json:
        typer.echo(encode_foreign(found.to_wire(), indent=True).decode())
    else:
        print_timeline(found, settings.namespace)


async def _read(settings: Settings, job_id: str) -> Timeline:
    async with opened(open_history(settings), settings) as history:
        return await timeline_of(history, job_id)


def print_timeline(found: Timeline, namespace: str, console: Console | None = None) -> None:
    """Prints a timeline, and the jobs that came of the job."""
    status, worker = found.state["status"], found.job.record["workerName"]
    title = f"Job {found.job.id} of {worker}: {status} (times in UTC)"
    columns = ("time", "told by", "event", "place")
    Listing(title, columns, "", [_row(line, namespace) for line in found.lines]).print(console)
    if found.relatives:
        (console or Console()).print()
        rows = [_relative_row(each) for each in found.relatives]
        Listing("Jobs that came of it", ("accepted", "relation", "status", "worker", "job"), "", rows).print(console)


def _row(line: Line, namespace: str) -> Row:
    style = EVENT_STYLES.get(line.event, "") if not line.void else "dim strike"
    event = line.event if line.attempt is None else f"{line.event} ({line.attempt})"
    place = f"{line.source.topic.removeprefix(f'{namespace}.')}/{line.source.partition}/{line.offset}"
    at = format_timestamp(line.at).replace("T", " ").removesuffix("Z")
    cells = (at, Text(line.origin, style="dim" if line.origin == "log" else "cyan"), Text(event, style=style), place)
    notes = [Text(line.note, style="dim" if line.void else "italic")] if line.note else []
    return Row(cells, [*notes, *(_change(each) for each in line.changes if _is_told(each))])


def _is_told(change: Change) -> bool:
    return change.path.partition(".")[0] not in _TOLD_ELSEWHERE


def _change(change: Change) -> Text:
    before = "" if change.before is MISSING else f"{_short(change.before)} -> "
    return Text(f"{change.path}: {before}{_short(change.after)}", style=_CHANGE_STYLES.get(change.path.partition(".")[0], "dim"))


def _short(value: Any) -> str:
    if value is MISSING:
        return "gone"
    text = value if isinstance(value, str) else encode_foreign(value).decode()
    text = " ".join(plain(text).plain.split())
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def _relative_row(each: Relative) -> Row:
    at = format_timestamp(each.job.accepted_at).replace("T", " ").removesuffix("Z")
    status = Text(each.status, style=EVENT_STYLES.get(each.status, ""))
    return Row((at, each.relation, status, str(each.job.record["workerName"]), each.job.id))
