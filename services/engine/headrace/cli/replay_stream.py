"""`headrace replay stream`: recorded jobs of a span run again, and what comes of them beside what came of them then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn, TextIO

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from headrace.cli.common import (
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    AsJson,
    BootstrapServers,
    NamespaceOption,
    errors_shown,
    log_to_stderr,
    output_apart,
    plain,
)
from headrace.cli.engine import WorkerPaths
from headrace.cli.listing import Listing, Row
from headrace.cli.moments import parse_span, parse_span_in_export
from headrace.cli.replay import FileOption, LiveOption, ShippedOption, replay_settings, replayed_workers
from headrace.errors import ArgumentsInvalid, ConfigurationError, HeadraceError, HistoryGone
from headrace.replay.exports.export_format import read_header
from headrace.replay.facade import MOST_THREADS, StreamRequest, replay_stream
from headrace.replay.history import Span
from headrace.replay.recorded.wanted import parse_fields
from headrace.replay.sandboxes.markers import GONE_SECONDS
from headrace.replay.streams.pacing import Order, Pacing
from headrace.replay.streams.stream import StreamReplay
from headrace.replay.streams.summary import CATEGORIES, NOT_IN_CODE, Summary, categories_from, told_not_in_code
from headrace.replay_errors import NothingInCode
from headrace.runtime import StopRequested, StopSignals, leave_threads_behind, run
from headrace.settings import Settings
from headrace.workers import shipped_workers

EXIT_DIFFERENT = 1
_TOLD_EVERY_SECONDS = 0.2

_STYLES = {
    "same": "green",
    "different": "yellow",
    "newly-failing": "red",
    "newly-fixed": "cyan",
    "slower": "magenta",
    "arguments-refused": "red",
    NOT_IN_CODE: "yellow",
}
_EXPLAINED = {
    "same": "status, result and error are as they were",
    "different": "another result, or another error",
    "newly-failing": "completed then, fail today",
    "newly-fixed": "failed then, complete today",
    "slower": "over twice as long, and over 100 ms; counted beside their verdict",
    "not-comparable": "not run: cancelled, crashed, not ended; or not recorded: see --live",
    "arguments-refused": "today's code does not take their arguments",
    NOT_IN_CODE: "not replayed: the loaded code has no such worker",
}
_NAME_YOUR_MODULE = "Name the module of your workers, such as my_app.workers."
_RENAMED = f"Was a worker renamed? Jobs of a name that is not in the code are not replayed: --fail-on {NOT_IN_CODE} finds them."
_FAIL_ON_HELP = (
    f"Exit with 1 if there are any of these, with commas between: {', '.join(CATEGORIES[1:])}. A job that meets a new"
    " `ctx.recorded` is not-comparable, and so checked by nothing, unless that is among them, or --live asks outside."
)


def stream(
    workers: WorkerPaths = None,
    worker: Annotated[
        list[str] | None, typer.Option(help="Jobs of this worker; can be given again. [default: all that are loaded]")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--from", help="Jobs accepted from then on: 2026-01-31T09:15:00Z, or 2h for two hours ago.")
    ] = None,
    until: Annotated[
        str, typer.Option("--to", help="Jobs accepted before then; as --from, or now, which is the end of a --file.")
    ] = "now",
    where: Annotated[
        list[str] | None, typer.Option(help="Only jobs with these fields: status=failed,userId=ada,args.kind=digest.")
    ] = None,
    speed: Annotated[str, typer.Option(help="1 for as fast as they came, 10 for ten times that, or max.")] = "max",
    concurrency: Annotated[
        int, typer.Option(min=1, max=10_000, help=f"Jobs that run at a time; {MOST_THREADS} at most of plain functions.")
    ] = 100,
    order: Annotated[
        Order,
        typer.Option(help="key: those of an ordering key one after another. log: all start in the order in which they came."),
    ] = Order.KEY,
    sandbox: Annotated[
        bool, typer.Option("--sandbox", help="Run them through an engine in a namespace of its own, which is removed afterwards.")
    ] = False,
    into: Annotated[str | None, typer.Option(help="The same, in the namespace <namespace>.replay-<id> with this id.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep that namespace, until `headrace replay clean`.")] = False,
    file: FileOption = None,
    live: LiveOption = False,
    fail_on: Annotated[str | None, typer.Option(help=_FAIL_ON_HELP)] = None,
    shipped: ShippedOption = True,
    bootstrap_servers: BootstrapServers = None,
    namespace: NamespaceOption = None,
    as_json: AsJson = False,
) -> None:
    """Run the recorded jobs of a span again through today's code, and show what came out otherwise.

    Nothing of it reaches the live system.
    """
    with errors_shown(), output_apart() as output:
        in_sandbox = sandbox or into is not None
        if keep and not in_sandbox:
            raise ArgumentsInvalid("--keep keeps a sandbox: give --sandbox or --into, too.")
        failing = frozenset[str]() if fail_on is None else categories_from(fail_on)
        settings = replay_settings(None if in_sandbox else file, bootstrap_servers, namespace)
        log_to_stderr(settings, default="ERROR")
        request = StreamRequest(
            code=replayed_workers(settings, workers, shipped=shipped),
            span=_span(since, until, file),
            workers=tuple(worker or ()),
            fields=parse_fields(where or []),
            pacing=Pacing(concurrency=concurrency, order=order, speed=_speed(speed)),
            sandbox=in_sandbox,
            into=into,
            keep=keep,
            file=file,
            live=live,
        )
        check = _Check(failing, _own_workers(settings, request, workers or ()))
        if Console(stderr=True).is_terminal:
            typer.echo("Reading what was recorded; then the jobs run.", err=True)
        with _workers_asked_for(workers or ()):
            code = run(_replay(settings, request, check, _Answer(output, as_json)))
    raise typer.Exit(code)


@dataclass(frozen=True, slots=True)
class _Check:
    """What --fail-on asks for.

    Attributes:
        failing: the categories of which no job is to be.
        workers: whose jobs have to be there, or nothing is checked.
    """

    failing: Collection[str]
    workers: Collection[str]

    def told(self, summary: Summary) -> str:
        """What there is that was not to be."""
        found = [f"{summary.counts[each]:,} {each}" for each in CATEGORIES if each in self.failing and summary.counts[each]]
        return f"--fail-on has found jobs: {', '.join(found)}. Without what is left, that is exit code {EXIT_DIFFERENT}."

    def exit_code(self, summary: Summary) -> int:
        """What it comes to.

        Raises:
            ArgumentsInvalid: there was nothing to judge.
        """
        if summary.any_of(self.failing):
            return EXIT_DIFFERENT
        if self.failing and not summary.jobs_of(self.workers):
            others = "".join(f" {each}." for each in told_not_in_code(summary.not_in_code))
            raise ArgumentsInvalid(
                f"--fail-on had nothing to judge: no recorded job of {', '.join(sorted(self.workers))} is in that span, with what"
                f" --where and --worker say.{others}"
            )
        return 0


def _own_workers(settings: Settings, request: StreamRequest, paths: Collection[str]) -> set[str]:
    """Whose jobs the user wants to see checked: workers that come with headrace are loaded beside others, unless asked for."""
    names = {worker.definition().name for worker in request.code}
    shipped = {worker.definition().name for worker in shipped_workers(settings)}
    return set(request.workers) or (names - shipped if paths else names) or names


@contextmanager
def _workers_asked_for(paths: Collection[str]) -> Iterator[None]:
    """Where nothing is found for the workers that come with headrace alone, the user's own were forgotten, or renamed."""
    try:
        yield
    except (HistoryGone, NothingInCode) as error:
        if not paths:
            raise ConfigurationError(f"{error} {_NAME_YOUR_MODULE}") from None
        if isinstance(error, NothingInCode) and error.recorded:
            raise ConfigurationError(f"{error} {_RENAMED}") from None
        raise


def _span(since: str | None, until: str, file: Path | None) -> Span:
    if file is not None:
        return parse_span_in_export(since, until, read_header(file).span)
    if since is None:
        raise ArgumentsInvalid("Say from when on jobs are to be replayed: --from 2h, or --from 2026-01-31T09:15:00Z.")
    return parse_span(since, until)


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < 1e9:
        raise ArgumentsInvalid(f"--speed {text!r} is none: give how many times as fast as they came, such as 1 or 10, or max.")
    return speed


async def _replay(settings: Settings, request: StreamRequest, check: _Check, answer: _Answer) -> int:
    """Does it and shows what came of it; the exit code."""
    look = _Look(request, settings, answer)
    with StopSignals() as signals:
        signals.on_further.append(look.break_off)
        try:
            summary = await signals.unless_requested(replay_stream(request, settings, watch=look.watch))
        except StopRequested:
            look.tell_interrupted()
            # A function in a thread may go on for as long as it wants to.
            leave_threads_behind(EXIT_INTERRUPTED)
        except NothingInCode as error:
            summary = Summary()
            summary.leave_out(error.left_out)
            if not summary.any_of(check.failing):
                raise
        except HeadraceError:
            look.tell_kept()
            raise
    try:
        code = check.exit_code(summary)
    except ArgumentsInvalid:
        look.tell_kept()
        raise
    answer.show(summary, look.seconds, look.nothing)
    look.tell_kept()
    if summary.not_removed:
        typer.echo(f"Error: {summary.not_removed}", err=True)
        if code == EXIT_DIFFERENT:
            # Whoever goes by exit codes reads that something is left; what the check has found is not to be lost by that.
            typer.echo(f"Also, {check.told(summary)}", err=True)
        code = EXIT_USAGE
    if summary.left_behind:
        typer.echo("Functions go on in threads after their time; they end with this command.", err=True)
        leave_threads_behind(code)
    return code


class _Look:
    """Looks on while a replay goes on, and tells where it stands when it ends otherwise than by itself."""

    def __init__(self, request: StreamRequest, settings: Settings, answer: _Answer) -> None:
        self._keep = request.keep
        self._fields = request.fields
        self._live = settings.namespace
        self._answer = answer
        self._began = time.monotonic()
        self._replay: StreamReplay | None = None
        self._bar: Progress | None = None

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    @property
    def nothing(self) -> str:
        """What is told where no job was run."""
        read = self._replay.read if self._replay is not None else 0
        if not read or not self._fields:
            return "No recorded job is in that span."
        wanted = plain(", ".join(f"{path}={value}" for path, value in self._fields.items())).plain
        return (
            f"The one job in the span has not {wanted}." if read == 1 else f"None of the {read:,} jobs in the span has {wanted}."
        )

    def watch(self, replay: StreamReplay, total: int | None) -> AbstractAsyncContextManager[None]:
        """Shows how far a replay is, and remembers it."""
        self._replay, self._bar = replay, _made_bar()
        return _progress(self._bar, replay, total)

    def tell_interrupted(self) -> None:
        """Says that it was broken off, and what came of the jobs so far: of all where only the sandbox was to be removed."""
        typer.echo("Interrupted.", err=True)
        if self._replay is not None and (self._replay.is_done or self._replay.summary.jobs):
            self._answer.show(self._replay.summary, self.seconds, self.nothing, interrupted=not self._replay.is_done)
        self.tell_kept()

    def break_off(self) -> NoReturn:
        """Ends the process as it stands, and says what it leaves."""
        if self._bar is not None and not self._bar.disable:
            self._bar.stop()  # it hides the cursor
        self.tell_interrupted()
        if not self._keep and self._replay is not None and (name := self._replay.sandbox) is not None:
            typer.echo(
                f"The sandbox {name} is left, not all of it removed. `headrace replay clean --namespace {self._live}` removes it,"
                f" which takes {GONE_SECONDS:g} s, and with --all at once.",
                err=True,
            )
        leave_threads_behind(EXIT_INTERRUPTED)

    def tell_kept(self) -> None:
        """Says of the sandbox that is kept, if there is one, how to look at it, and how to remove it."""
        if self._keep and self._replay is not None and (name := self._replay.sandbox) is not None:
            typer.echo(
                f"Kept: the namespace {name}. Look at it by `headrace jobs --namespace {name}`, and remove it by"
                f" `headrace replay clean --namespace {self._live}`.",
                err=True,
            )


def _made_bar() -> Progress:
    """A bar on standard error, with the rate and the time left; none where nobody looks."""
    columns = (
        TextColumn("replaying"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn(),
    )  # fmt: skip
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@asynccontextmanager
async def _progress(bar: Progress, replay: StreamReplay, total: int | None) -> AsyncIterator[None]:
    """Shows in the bar how far a replay is while it goes on."""
    with bar:
        task, began = bar.add_task("replaying", total=total, rate=""), time.monotonic()

        def tell() -> None:
            done, elapsed = replay.summary.jobs, time.monotonic() - began
            bar.update(task, completed=done, total=replay.expected(total), rate=f"{done / elapsed:,.0f}/s" if elapsed else "")

        async def follow() -> None:
            while True:
                tell()
                await asyncio.sleep(_TOLD_EVERY_SECONDS)

        following = asyncio.create_task(follow())
        try:
            yield
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            tell()


# --- what is shown ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Answer:
    """Where a replay is told of, and whether as JSON."""

    output: TextIO
    as_json: bool

    def show(self, summary: Summary, seconds: float, nothing: str, *, interrupted: bool = False) -> None:
        """Prints what came of it, as a table or as JSON.

        Args:
            nothing: what a table tells where there are no jobs.
            interrupted: whether jobs were left.
        """
        if self.as_json:
            pace = round(summary.jobs / seconds, 1) if seconds else None
            told = {**summary.to_json(), "seconds": round(seconds, 3), "jobsPerSecond": pace, "interrupted": interrupted}
            typer.echo(orjson.dumps(told).decode(), file=self.output)
            return
        rate = f", {summary.jobs / seconds:,.0f}/s" if seconds else ""
        counted = f"{summary.jobs:,} {'job' if summary.jobs == 1 else 'jobs'}"
        rows = [_row(summary, category) for category in CATEGORIES] if summary.counts else []
        title = f"{counted} replayed in {seconds:.1f} s{rate}{'; then it was interrupted' if interrupted else ''}"
        listing = Listing(title, ["jobs", "", ""], nothing, rows)
        listing.print(Console(file=self.output))


def _row(summary: Summary, category: str) -> Row:
    count = summary.counts[category]
    style = _STYLES.get(category, "") if count else "dim"
    worst = [f"{kind.count:,} × {kind.worker}: {kind.what}  ({kind.example})" for kind in summary.worst(category)]
    if (left := summary.not_shown(category)).kinds:
        kinds = f"{'' if left.are_all else 'at least '}{left.kinds:,} more {'kind' if left.kinds == 1 else 'kinds'}"
        worst.append(f"and {kinds}, with {left.jobs:,} {'job' if left.jobs == 1 else 'jobs'}")
    told = told_not_in_code(summary.not_in_code) if category == NOT_IN_CODE else worst
    below = [Text("  ").append_text(plain(each)) for each in told]
    return Row((f"{count:,}", Text(category, style=style), Text(_EXPLAINED[category], style="dim")), below)
