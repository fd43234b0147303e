"""`headrace engine`: runs workers in this terminal."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from headrace.cli.common import BootstrapServers, NamespaceOption, errors_shown, log_to_stderr, settings_from
from headrace.engine.engine import WorkerEngine
from headrace.engine.loading import load_workers
from headrace.errors import EngineStuck
from headrace.runtime import leave_threads_behind, run
from headrace.settings import Settings
from headrace.workers import shipped_workers

_logger = logging.getLogger(__name__)

EXIT_STUCK = 3
"""An attempt could not be stopped: the engine has drained, and is to be started anew."""

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
) -> None:
    """Run your workers, and those that come with headrace, until Ctrl-C or SIGTERM; then let running jobs end."""
    with errors_shown():
        settings = with_grace(settings_from(bootstrap_servers, namespace), grace)
        log_to_stderr(settings)
        made = build_engine(settings, workers or [], shipped=shipped)
        run(_run(made))


async def _run(engine: WorkerEngine) -> None:
    try:
        drained = await engine.run()
    except EngineStuck as error:
        _logger.critical("%s", error)
        leave_threads_behind(EXIT_STUCK)
    if not drained:
        leave_threads_behind()


def with_grace(settings: Settings, grace: float | None) -> Settings:
    """The settings, with the grace that the option gives."""
    if grace is None:
        return settings
    return settings.model_copy(update={"engine": settings.engine.model_copy(update={"grace_seconds": grace})})


def build_engine(settings: Settings, paths: list[str], *, shipped: bool) -> WorkerEngine:
    """An engine with the workers of these import paths and, if wanted, those that come with headrace."""
    engine = WorkerEngine(settings)
    loaded = load_workers(paths)
    for each in [*loaded, *(shipped_workers(settings) if shipped else [])]:
        engine.register_worker(each)
    return engine
