"""`headrace engine`: runs workers in this terminal.

The command turns into the supervisor, which starts the same command again for each engine, with `--supervised`.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from headrace import supervisor
from headrace.cli.common import BootstrapServers, NamespaceOption, errors_shown, log_to_stderr, settings_from
from headrace.errors import EngineStuck, HeadraceError, LeaseLost, is_outage
from headrace.runtime import leave_threads_behind, run

# What becomes the supervisor has no use for an engine, which takes long to import.
if TYPE_CHECKING:
    from headrace.engine.engine import WorkerEngine
    from headrace.engine.guardian import Guardian
    from headrace.settings import Settings

_logger = logging.getLogger(__name__)

EXIT_STUCK = 3
"""An attempt could not be stopped: the engine has drained, and is to be started anew."""

EXIT_OUTAGE = 4
"""The brokers are away: the next start may find them, where no start mends a wrong setting."""

WorkerPaths = Annotated[
    list[str] | None, typer.Argument(help="Import paths of your workers: my_app.workers, or my_app.workers:one.")
]


def engine(
    workers: WorkerPaths = None,
    bootstrap_servers: BootstrapServers = None,
    namespace: NamespaceOption = None,
    grace: Annotated[
        float | None, typer.Option(min=0, help="Seconds that running jobs may go on after SIGTERM. [default: 30]")
    ] = None,
    shipped: Annotated[bool, typer.Option(help="Run the workers that come with headrace, too.")] = True,
    processes: Annotated[int, typer.Option(min=1, help="Engines to run, each in a process of its own.")] = 1,
    supervised: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run your workers, and those that come with headrace, until Ctrl-C or SIGTERM; then let running jobs end.

    A supervisor starts another engine when one dies, and gives what it held to the others.
    """
    with errors_shown(), _outages_apart():
        settings = with_grace(settings_from(bootstrap_servers, namespace), grace)
        if supervised is None:
            _become_supervisor(settings, processes)
        from headrace.engine.supervised import Supervised

        log_to_stderr(settings)
        number, report_to, life = (int(each) for each in supervised.split(","))
        settings = _with_own_port(settings, number)
        run(_run(build_engine(settings, workers or [], shipped=shipped, guardian=Supervised(report_to, life))))


@contextmanager
def _outages_apart() -> Iterator[None]:
    """What its supervisor is to tell from a setting that is wrong has an exit code of its own."""
    try:
        yield
    except HeadraceError as error:
        if not is_outage(error):
            raise
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(EXIT_OUTAGE) from None


def _become_supervisor(settings: Settings, processes: int) -> NoReturn:
    """Replaces this program by the small one that starts engines with the same arguments."""
    program = str(Path(supervisor.__file__).with_name("program.py"))
    arguments = sys.argv[sys.argv.index("engine") + 1 :]
    options = ["--processes", str(processes), "--log-level", settings.log_level, "--", *arguments]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, program, *options])


async def _run(engine: WorkerEngine) -> None:
    try:
        drained = await engine.run()
    except HeadraceError as error:
        if not isinstance(error, EngineStuck) and not isinstance(error.__cause__, LeaseLost):
            raise
        # A job runs on in a thread, and the interpreter would wait for that.
        _logger.critical("%s", error)
        leave_threads_behind(EXIT_STUCK)
    _logger.info("engine %s has ended%s", engine.instance_id, "" if drained else "; functions in threads were left behind")
    if not drained:
        leave_threads_behind()


def _with_own_port(settings: Settings, number: int) -> Settings:
    """The settings of the engine of that number, of several that one command runs."""
    port = settings.engine.health_port
    if not port:
        return settings
    own = settings.engine.model_copy(update={"health_port": port + number})
    return settings.model_copy(update={"engine": own})


def with_grace(settings: Settings, grace: float | None) -> Settings:
    """The settings, with the grace that the option gives."""
    if grace is None:
        return settings
    return settings.model_copy(update={"engine": settings.engine.model_copy(update={"grace_seconds": grace})})


def build_engine(settings: Settings, paths: list[str], *, shipped: bool, guardian: Guardian | None = None) -> WorkerEngine:
    """An engine with the workers of these import paths and, if wanted, those that come with headrace."""
    from headrace.engine.engine import WorkerEngine
    from headrace.engine.loading import load_workers
    from headrace.workers import shipped_workers

    engine = WorkerEngine(settings, guardian=guardian)
    loaded = load_workers(paths)
    for each in [*loaded, *(shipped_workers(settings) if shipped else [])]:
        engine.register_worker(each)
    return engine
