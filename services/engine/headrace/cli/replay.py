"""`headrace replay job`: runs a recorded job again, here, and shows what comes of it beside what came of it then."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, redirect_stdout
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, NoReturn, TextIO

import orjson
import typer
from rich.console import Console

from headrace.abstract_worker import AbstractWorker
from headrace.cli.common import (
    EXIT_INTERRUPTED,
    AsJson,
    BootstrapServers,
    NamespaceOption,
    base_settings,
    errors_shown,
    log_to_stderr,
    opened,
    output_apart,
    plain,
    settings_from,
)
from headrace.cli.engine import WorkerPaths
from headrace.cli.replay_changes import Changes, changes_of
from headrace.cli.replay_debugger import LoadedCode, debug
from headrace.cli.replay_shown import show
from headrace.core.comparison import Verdict
from headrace.engine.loading import load_workers
from headrace.engine.outcome import without_own_frames
from headrace.errors import ArgumentsInvalid, JobTimeout, ResultInvalid, ResultTooLarge
from headrace.models import CallContext
from headrace.replay.facade import recorded_history
from headrace.replay.history import History
from headrace.replay.rerunning.code import by_name
from headrace.replay.rerunning.differences import rerun_as_json
from headrace.replay.rerunning.rerun import Rerun, Rerunner, RerunOptions
from headrace.replay.rerunning.running import StillRunning
from headrace.runtime import leave_threads_behind
from headrace.settings import Settings
from headrace.workers import shipped_workers

EXIT_DIFFERS = 1

_TEXTS = frozenset(f"ctx.{field.alias or name}" for name, field in CallContext.model_fields.items())
"""What can only be a text, whatever it looks like."""

_ALIKE = frozenset({Verdict.SAME, Verdict.NOT_COMPARABLE})

FileOption = Annotated[
    Path | None, typer.Option("--file", help="Read what `headrace export` wrote, in place of the log: no broker is needed.")
]
LiveOption = Annotated[
    bool,
    typer.Option(
        "--live",
        help="For what was not recorded, call the function that `ctx.recorded` was given: what that does outside happens.",
    ),
]
ShippedOption = Annotated[bool, typer.Option(help="Load the workers that come with headrace, too.")]


def job(
    job_id: Annotated[str, typer.Argument(help="The job's id, as `headrace jobs` has it.")],
    workers: WorkerPaths = None,
    attempt: Annotated[int | None, typer.Option(min=1, help="The attempt to run again. [default: the final one]")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Another argument, as args.pages.0=5: JSON, or else a text; or ctx.x."),
    ] = None,
    live: LiveOption = False,
    debugger: Annotated[
        bool, typer.Option("--pdb", help="Open the debugger where it fails: in your code, with libraries below by `down`.")
    ] = False,
    file: FileOption = None,
    shipped: ShippedOption = True,
    bootstrap_servers: BootstrapServers = None,
    namespace: NamespaceOption = None,
    as_json: AsJson = False,
) -> None:
    """Run one attempt of a job again, here, with what it had then, and show what differs; exit with 1 if something does.

    What it enqueues, its progress and what it writes into memory are shown, and not done.
    """
    with errors_shown(), output_apart() as output:
        settings = replay_settings(file, bootstrap_servers, namespace)
        log_to_stderr(settings)
        loaded = replayed_workers(settings, workers, shipped=shipped)
        again = _Again(settings, loaded, file, output)
        options = RerunOptions(live=live, keep_raised=debugger)
        rerun = asyncio.run(again.run(job_id, attempt, _parsed(changes or []), options, as_json=as_json))
    if debugger:
        _debug(rerun, by_name(loaded)[rerun.job.record["workerName"]])
    raise typer.Exit(_exit_code(rerun))


def replay_settings(file: Path | None, bootstrap_servers: str | None, namespace: str | None) -> Settings:
    """The settings of a replay: from a file it needs no broker.

    Raises:
        ConfigurationError: a setting is wrong, or no broker is known.
    """
    return settings_from(bootstrap_servers, namespace) if file is None else base_settings(bootstrap_servers, namespace)


def replayed_workers(settings: Settings, paths: Iterable[str] | None, *, shipped: bool) -> list[AbstractWorker[Any]]:
    """Today's code: the workers of these import paths and, if wanted, those that come with headrace.

    Raises:
        WorkerImportError: a module cannot be imported, or has no worker.
        ConfigurationError: two workers have the same name: which of them is meant cannot be known.
    """
    return list(by_name([*load_workers(paths or ()), *(shipped_workers(settings) if shipped else [])]).values())


@asynccontextmanager
async def replayed_history(settings: Settings, file: Path | None) -> AsyncIterator[History]:
    """What was recorded, in the log or in the file, for the block."""
    recorded = recorded_history(settings, file)
    async with recorded if file is not None else opened(recorded, settings) as history:
        yield history


class _Again:
    """Runs a job again, in the event loop, and tells of it where `output` is."""

    def __init__(self, settings: Settings, workers: list[AbstractWorker[Any]], file: Path | None, output: TextIO) -> None:
        self._settings = settings
        self._workers = workers
        self._file = file
        self._output = output

    async def run(
        self, job_id: str, attempt: int | None, changes: Mapping[str, Any], options: RerunOptions, *, as_json: bool
    ) -> Rerun:
        async with replayed_history(self._settings, self._file) as history:
            *earlier, found = await history.runs(job_id)
            if earlier:
                told = (
                    f"{len(earlier) + 1} jobs had the id {job_id}, one after another: this is the newest. Its timeline has all."
                )
                typer.echo(plain(told).plain, err=True)
            async with Rerunner(history, self._workers, options) as rerunner:
                changed = changes_of(found, changes, rerunner.workers.get(found.record["workerName"]))
                try:
                    rerun = await rerunner.rerun(changed.job, attempt=attempt)
                except asyncio.CancelledError:
                    if rerunner.left_behind:
                        _leave_threads(EXIT_INTERRUPTED, "Interrupted.")
                    raise
                self._tell(rerun, changed, as_json=as_json)
                if rerunner.left_behind:
                    if options.keep_raised:
                        self._debug_inside(rerun, rerunner.workers[rerun.job.record["workerName"]])
                    _leave_threads(_exit_code(rerun), "It goes on in a thread, which ends with this command.")
                return rerun

    def _debug_inside(self, rerun: Rerun, worker: AbstractWorker[Any]) -> None:
        """Debugs inside of the event loop, which is not left any more."""
        # At the debugger's prompt Ctrl-C is not for the loop.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with redirect_stdout(self._output):
            _debug(rerun, worker)
        self._output.flush()

    def _tell(self, rerun: Rerun, changed: Changes, *, as_json: bool) -> None:
        for path in changed.idle:
            told = f"--set {path}=... changes nothing: the worker gets the same arguments without it. Is the name right?"
            typer.echo(plain(told).plain, err=True)
        if as_json:
            told_all = {**rerun_as_json(rerun), "changed": [place.path for place in changed.places]}
            Console(file=self._output).print_json(data=told_all)
        else:
            show(rerun, Console(file=self._output, highlight=False), changed)


def _leave_threads(code: int, message: str) -> NoReturn:
    """Ends the command while an attempt goes on: the loop's end would wait for a coroutine that does not heed being cancelled."""
    typer.echo(message, err=True)
    leave_threads_behind(code)


def _exit_code(rerun: Rerun) -> int:
    return 0 if rerun.comparison.verdict in _ALIKE else EXIT_DIFFERS


def _parsed(changes: Iterable[str]) -> dict[str, Any]:
    """The changes by their paths.

    Raises:
        ArgumentsInvalid: one has no value.
    """
    parsed: dict[str, Any] = {}
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals:
            raise ArgumentsInvalid(f"--set {change!r} has no value: write it as --set args.x=5.")
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            value = text
        # A user may be named 42.
        parsed[path] = text if path in _TEXTS and not isinstance(value, str | None) else value
    return parsed


def _debug(rerun: Rerun, worker: AbstractWorker[Any]) -> None:
    """Opens the debugger where the attempt failed in the worker's code, or stood when its time was over."""
    frames = _frames(rerun.raised)
    if frames is None:
        typer.echo(f"Nothing to debug: {_why_nothing(rerun)}.", err=True)
    else:
        if isinstance(rerun.raised, JobTimeout) and isinstance(rerun.raised.__cause__, StillRunning):
            typer.echo("It stood here when its time was over, and goes on in its thread: the values are those of now.", err=True)
        debug(frames, LoadedCode(worker, Path.cwd()))


def _why_nothing(rerun: Rerun) -> str:
    if rerun.error is None:
        return "it did not fail"
    if isinstance(rerun.raised, JobTimeout):
        return "its time was over, and where it stood then cannot be known"
    return "what it failed by was not raised in the worker's code"


def _frames(error: BaseException | None) -> TracebackType | None:
    if isinstance(error, JobTimeout):
        # Where it stood when its time was over.
        error = error.__cause__
    if error is None or isinstance(error, ResultInvalid | ResultTooLarge):
        return None
    return without_own_frames(error)
