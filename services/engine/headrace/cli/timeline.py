"""`headrace timeline`: everything that is known of one job, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Final

import orjson
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
from headrace.cli.listing import Listing, Row, is_bounded
from headrace.codec import encode_foreign
from headrace.core.timestamps import format_timestamp
from headrace.replay.inspection.relatives import Relative
from headrace.replay.inspection.steps import MISSING, Change
from headrace.replay.inspection.timeline import Line, Timeline, timeline_of
from headrace.replay.recorded.log_history import open_history
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
# What JSON leaves as it is, though it may end a line, or move a terminal's cursor.
_ESCAPED: Final = {code: f"\\u{code:04x}" for code in (*range(127, 160), 0x2028, 0x2029)}
# What other columns say, or what changes with every record.
_TOLD_ELSEWHERE: Final = frozenset({"status", "updatedAt", "sequence", "attempt", "attempts", "schemaVersion", "finishedAt"})


def timeline(
    job_id: Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")],
    bootstrap_servers: BootstrapServers = None,
    namespace: NamespaceOption = None,
    full: Annotated[bool, typer.Option("--full", help="Show each value whole; as it is in a pipe, and with --json.")] = False,
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
        print_timeline(found, settings.namespace, full=full)


async def _read(settings: Settings, job_id: str) -> Timeline:
    async with opened(open_history(settings), settings) as history:
        return await timeline_of(history, job_id)


def print_timeline(found: Timeline, namespace: str, console: Console | None = None, *, full: bool = False) -> None:
    """Prints a timeline, and the jobs around the job.

    Args:
        full: each value is shown whole and as it is, also at a terminal.
    """
    console = console or Console()
    longest = None if full or not is_bounded(console) else _LONGEST_VALUE
    title = f"Job {found.job.id} of {found.job.record['workerName']}: {found.status}"
    rows = [_row(line, namespace, longest) for line in found.lines]
    Listing(title, ("time", "told by", "event", "place"), "", rows, _summary(found)).print(console, full=full)
    earlier = [each for each in found.relatives if each.relation == "retried"]
    later = [each for each in found.relatives if each.relation != "retried"]
    for title, relatives in (("Jobs that it does anew", earlier), ("Jobs that came of it", later)):
        if relatives:
            console.print()
            columns = ("job", "accepted", "relation", "status", "worker")
            Listing(title, columns, "", [_relative_row(each) for each in relatives]).print(console, full=full)


def _summary(found: Timeline) -> list[Text]:
    """Where the job stands in its chain of retries: what it does anew, and how that ended at last."""
    told = []
    if found.job.damaged:
        told.append(Text("The newest record of it cannot be read: what is told of it is what stood before.", style="red"))
    if found.retry_of is not None:
        left = {each.job.id: each for each in found.relatives if each.relation == "retried"}
        known = left.get(found.retry_of)
        told.append(Text(f"It does job {found.retry_of} anew, which is {known.status if known else 'not in the log any more'}."))
    if count := len(found.retries):
        last, status = found.outcome
        times = "once" if count == 1 else f"{count} times"
        told.append(
            Text(f"It was done anew {times}; at last, as job {last}, it is {status}.", style=EVENT_STYLES.get(status, ""))
        )
    return [plain(each.plain, style=str(each.style)) for each in told]


def _row(line: Line, namespace: str, longest: int | None) -> Row:
    style = EVENT_STYLES.get(line.event, "") if not line.void else "dim strike"
    event = line.event if line.attempt is None else f"{line.event} ({line.attempt})"
    place = f"{line.source.topic.removeprefix(f'{namespace}.')}/{line.source.partition}/{line.offset}"
    told_by = Text(line.origin, style="dim" if line.origin == "log" else "cyan")
    cells = (format_timestamp(line.at), told_by, Text(event, style=style), place)
    notes = [Text(" ".join(line.note.split()), style="dim" if line.void else "italic")] if line.note else []
    changes = [_change(each, longest) for each in line.changes if _is_told(each)]
    return Row(cells, [*notes, *changes], is_verbatim=True)


def _is_told(change: Change) -> bool:
    return change.path.partition(".")[0] not in _TOLD_ELSEWHERE


def _change(change: Change, longest: int | None) -> Text:
    before = "" if change.before is MISSING else f"{_shown(change.before, longest)} -> "
    style = _CHANGE_STYLES.get(change.path.partition(".")[0], "dim")
    return Text(f"{change.path}: {before}{_shown(change.after, longest)}", style=style)


def _shown(value: Any, longest: int | None) -> str:
    if value is MISSING:
        return "gone"
    if longest is None:
        return _whole(value)
    text = value if isinstance(value, str) else encode_foreign(value).decode()
    text = " ".join(plain(text).plain.split())
    return text if len(text) <= longest else f"{text[:longest]}..."


def _whole(value: Any) -> str:
    """All of a value in one line: JSON, but for a text that says the same without."""
    encoded = encode_foreign(value).decode().translate(_ESCAPED)
    is_itself = isinstance(value, str) and encoded == f'"{value}"' and value.strip() == value != "" and not _is_json(value)
    return value if is_itself else encoded


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _relative_row(each: Relative) -> Row:
    status = Text(each.status, style=EVENT_STYLES.get(each.status, ""))
    cells = (each.job.id, format_timestamp(each.job.accepted_at), each.relation, status, str(each.job.record["workerName"]))
    return Row(cells)
