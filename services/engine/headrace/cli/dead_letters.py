"""`headrace dead-letters`: look at what could not be done, and do it anew."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import aclosing
from datetime import datetime
from heapq import nlargest
from typing import Annotated, Any, get_args

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from headrace.cli.common import (
    AsJson,
    BootstrapServers,
    NamespaceOption,
    errors_shown,
    log_to_stderr,
    opened_client,
    plain,
    settings_from,
    warn_of_unknown_worker,
)
from headrace.cli.listing import Listing, Row, output_console
from headrace.cli.moments import parse_since_and_until
from headrace.cli.redriving import RedrivePlan, Tally, matching_letters, named_letters, redrive_letters, select_letters
from headrace.core.timestamps import format_timestamp, to_milliseconds
from headrace.dead_letters import DeadLetter, DeadLetterFilter
from headrace.errors import ArgumentsInvalid
from headrace.models import DeadLetterHeaders
from headrace.settings import Settings

application = typer.Typer(help="What could not be done: look at it, and do it anew.", no_args_is_help=True)

_REASONS: tuple[str, ...] = get_args(DeadLetterHeaders.model_fields["reason"].annotation)
_SHOWN_FAILURES = 20
_SHOWN_CHARACTERS = 4_000

WorkerOption = Annotated[str | None, typer.Option("--worker", help="Only those from the queue of this worker.")]
ReasonOption = Annotated[
    str | None,
    typer.Option(
        "--reason",
        help=f"Only those with this reason: {', '.join(_REASONS)}.",
    ),
]
JobOption = Annotated[str | None, typer.Option("--job", help="Only those of the job of this id.")]
SinceOption = Annotated[
    str | None, typer.Option("--since", help="Only those written since then: 2026-01-31T09:15:00Z, or 2h for two hours ago.")
]
UntilOption = Annotated[str | None, typer.Option("--until", help="Only those written before then; as --since.")]


@application.command("list")
def list_(
    worker: WorkerOption = None,
    reason: ReasonOption = None,
    job: JobOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 50,
    bootstrap_servers: BootstrapServers = None,
    namespace: NamespaceOption = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest first."""
    with errors_shown():
        wanted = filter_from(worker, reason, job, since, until)
        found, count = asyncio.run(_newest(_settings(bootstrap_servers, namespace), wanted, limit))
    if as_json:
        Console().print_json(data=[letter.to_wire(whole=False) for letter in found])
        return
    letters_listing(found, "No dead letters." if wanted == DeadLetterFilter() else "No dead letter matches.").print()
    if count > len(found):
        typer.echo(f"{count - len(found)} older ones are not shown: give a greater --limit, or filters.", err=True)


@application.command()
def show(
    letter: Annotated[str, typer.Argument(help="Partition and offset, as `list` has them (0/17), or a job's id.")],
    raw: Annotated[bool, typer.Option("--raw", help="Write the original bytes of the value alone, as they are.")] = False,
    bootstrap_servers: BootstrapServers = None,
    namespace: NamespaceOption = None,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter with its bytes; of several of one job, the newest."""
    with errors_shown():
        found = asyncio.run(_named_only(_settings(bootstrap_servers, namespace), letter))
        newest = max(found, key=_age)
        if len(found) > 1:
            places = ", ".join(each.place for each in sorted(found, key=_age))
            typer.echo(f"Job {plain(letter).plain} has {len(found)} dead letters: {places}.", err=True)
    if raw:
        sys.stdout.buffer.write(newest.value or b"")
        sys.stdout.buffer.flush()
    elif as_json:
        Console().print_json(data=newest.to_wire())
    else:
        _print_letter(newest)


@application.command()
def redrive(
    letters: Annotated[list[str] | None, typer.Argument(help="Partition and offset (0/17), or ids of jobs.")] = None,
    worker: WorkerOption = None,
    reason: ReasonOption = None,
    job: JobOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    everything: Annotated[bool, typer.Option("--all", help="All that there are, when nothing else is given.")] = False,
    to: Annotated[str | None, typer.Option("--to", help="The worker that is to do it, in place of the record's own.")] = None,
    args: Annotated[str | None, typer.Option("--args", help="Arguments, a JSON object, in place of the letter's own.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would become of each.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    bootstrap_servers: BootstrapServers = None,
    namespace: NamespaceOption = None,
    as_json: AsJson = False,
) -> None:
    """Do anew what dead letters asked for: a new job for each, made once. Exits 1 if one of them cannot be redriven."""
    with errors_shown():
        wanted = filter_from(worker, reason, job, since, until)
        if not letters and wanted == DeadLetterFilter() and not everything:
            raise ArgumentsInvalid("Say which: name dead letters, give a filter, or --all.")
        settings = _settings(bootstrap_servers, namespace)
        places = asyncio.run(select_letters(settings, wanted, letters or []))
        new_args = _arguments(args)
        if new_args is not None and len(places) > 1:
            raise ArgumentsInvalid(f"--args is for one dead letter, and these are {len(places)}: name the one.")
        if places and not (yes or dry_run):
            typer.confirm(f"Redrive {_count(len(places))}?", abort=True, err=True)
        plan = RedrivePlan(wanted, frozenset(places), to, new_args, dry_run)
        tally = asyncio.run(redrive_letters(settings, plan))
    if as_json:
        Console().print_json(data=tally.described)
    else:
        _print_tally(tally)
    if tally.trouble is not None:
        typer.echo(plain(f"Stopped: {tally.trouble}").plain, err=True)
        typer.echo(f"{tally.left} were not tried. Repeat the command: what is redriven already is passed over.", err=True)
    if tally.trouble is not None or tally.counts["failed"]:
        raise typer.Exit(1)


# --- options ------------------------------------------------------------------------------------------------------------


def filter_from(
    worker: str | None, reason: str | None, job: str | None, since: str | None, until: str | None
) -> DeadLetterFilter:
    """The filter of the options. A reason that is none of those known is told: a newer engine may give others.

    Raises:
        ArgumentsInvalid: a time is none, or the first is not before the second.
    """
    if reason is not None and reason not in _REASONS:
        typer.echo(plain(f"No reason is named {reason!r}. There are: {', '.join(_REASONS)}.").plain, err=True)
    first, last = parse_since_and_until(since, until)
    return DeadLetterFilter(worker_name=worker, reason=reason, job_id=job, since=first, until=last)


def _arguments(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        decoded = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ArgumentsInvalid(f"--args is no JSON: {error}.") from None
    if not isinstance(decoded, dict):
        raise ArgumentsInvalid("--args is no JSON object.")
    return decoded


def _settings(bootstrap_servers: str | None, namespace: str | None) -> Settings:
    settings = settings_from(bootstrap_servers, namespace)
    log_to_stderr(settings, default="WARNING")
    return settings


# --- reading ------------------------------------------------------------------------------------------------------------


def _age(letter: DeadLetter) -> tuple[datetime, int, int]:
    return letter.written_at, letter.partition, letter.offset


async def _newest(settings: Settings, wanted: DeadLetterFilter, limit: int) -> tuple[list[DeadLetter], int]:
    """The newest letters, and how many there are."""
    newest: list[DeadLetter] = []
    count = 0
    async with opened_client(settings) as client, aclosing(matching_letters(client, wanted)) as letters:
        warn_of_unknown_worker(wanted.worker_name, await client.worker_definitions())
        async for letter in letters:
            count += 1
            newest.append(letter)
            if len(newest) >= 2 * limit:
                # As many as are shown, not as many as there are, are held: a letter may have megabytes.
                newest = nlargest(limit, newest, key=_age)
    return nlargest(limit, newest, key=_age), count


async def _named_only(settings: Settings, name: str) -> list[DeadLetter]:
    async with opened_client(settings) as client:
        return await named_letters(client, [name])


# --- printing -----------------------------------------------------------------------------------------------------------


def letters_listing(letters: Sequence[DeadLetter], nothing: str = "No dead letters.") -> Listing:
    """Dead letters for the terminal; which job each is of, and why it is one, stands in a line of its own."""
    columns = ("letter", "written", "reason", "worker")
    return Listing("Dead letters, newest first", columns, nothing, [_letter_row(each) for each in letters])


def _letter_row(letter: DeadLetter) -> Row:
    cells = (letter.place, format_timestamp(to_milliseconds(letter.written_at)), letter.reason or "-", letter.worker_name or "-")
    told = [text for text in (f"job {letter.job_id}" if letter.job_id else "", letter.message or "") if text]
    return Row(cells, [Text(": ".join(told), style="red")] if told else [])


def _print_letter(letter: DeadLetter) -> None:
    console = output_console()
    described = letter.to_wire()
    for name in ("key", "keyBase64", "value", "valueBase64", "headers"):
        described.pop(name, None)
    table = Table(title=f"Dead letter {letter.place}", title_justify="left", box=None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in described.items():
        shown = f"{value['topic']}/{value['partition']}/{value['offset']}" if name == "source" else str(value)
        table.add_row(name, plain(shown))
    for name, header in letter.headers:
        table.add_row("header", plain(f"{name}: {header!r}"))
    table.add_row("key", plain(repr(letter.key)))
    console.print(table)
    console.print()
    raw = letter.record()
    if raw is not None:
        text = orjson.dumps(raw, option=orjson.OPT_INDENT_2).decode()
    else:
        text = "no value" if letter.value is None else repr(letter.value)
    console.print(plain(text[:_SHOWN_CHARACTERS]))
    if len(text) > _SHOWN_CHARACTERS:
        console.print(plain("... --raw writes all of it."))


def _print_tally(tally: Tally) -> None:
    if not tally.counts:
        typer.echo("No dead letter matches.")
        return
    words = {"redriven": "redriven", "possible": "can be redriven", "already_redriven": "already redriven", "failed": "failed"}
    typer.echo(", ".join(f"{tally.counts[outcome]} {told}" for outcome, told in words.items() if tally.counts[outcome]) + ".")
    for described in tally.described[:_SHOWN_FAILURES]:
        if "jobId" in described and described["outcome"] != "failed":
            letter, status = described["letter"], described.get("job", {}).get("status")
            told = f"  {letter['partition']}/{letter['offset']}: job {described['jobId']}" + (f", {status}" if status else "")
            typer.echo(plain(told).plain)
    for place, message in tally.failures[:_SHOWN_FAILURES]:
        typer.echo(plain(f"  {place}: {message}").plain, err=True)
    if max(len(tally.described), len(tally.failures)) > _SHOWN_FAILURES:
        typer.echo(f"  Each is listed {_SHOWN_FAILURES} times at most; --json has all.", err=True)


def _count(number: int) -> str:
    return "1 dead letter" if number == 1 else f"{number} dead letters"
