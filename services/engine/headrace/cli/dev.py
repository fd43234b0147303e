"""`headrace dev`: the whole system in one terminal."""

from __future__ import annotations

import asyncio
import logging
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from headrace.broker import Broker, BrokerRequest, LocalBrokerOptions, OwnedBroker
from headrace.broker.discovery import running_broker
from headrace.cli.common import NamespaceOption, StopNow, base_settings, errors_shown, interruptible_broker, log_to_stderr
from headrace.cli.engine import WorkerPaths, build_engine
from headrace.cli.listing import output_console
from headrace.engine.engine import WorkerEngine
from headrace.engine.loading import load_workers
from headrace.runtime import StopRequested, StopSignals, leave_threads_behind, run
from headrace.settings import Settings

if TYPE_CHECKING:
    from headrace_gateway import GatewayServer

_ALIVE_CHECK_SECONDS = 1.0
# Of a broker that another process runs: so many looks in a row, each of some seconds, must find nothing.
_LOOKS_IN_VAIN = 3
_JOINED = """\
Engine and gateway have joined the broker that runs already: they share its jobs with the others there, and end when it does.
For a system of its own start in another folder, or set HEADRACE_DATA_DIRECTORY to one; or end that broker's process first."""


@dataclass(frozen=True, slots=True)
class System:
    """A broker, an engine and a gateway that run together.

    Attributes:
        settings: those with which engine and gateway run; they name the broker.
        settings_of_folder: those with which the broker was looked for.
    """

    settings: Settings
    settings_of_folder: Settings
    broker: Broker
    engine: WorkerEngine
    gateway: GatewayServer


@asynccontextmanager
async def running_system(
    settings: Settings, broker: Broker, signals: StopSignals, *, workers: Sequence[str] = (), ephemeral: bool = False
) -> AsyncIterator[System]:
    """Starts engine and gateway, and ends them and the broker in the opposite order.

    A gateway port that is taken is replaced by a free one. With an ephemeral broker nothing at all is kept: the views go with
    it, and leave those of the folder's own data alone. A further signal takes the grace away from the engine's end.
    """
    from headrace_gateway import GatewayServer

    async with AsyncExitStack() as ends:
        ends.push_async_callback(asyncio.to_thread, broker.stop)
        of_folder = settings
        given: dict[str, Any] = {"bootstrap_servers": broker.bootstrap_servers}
        if ephemeral:
            given["data_directory"] = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="headrace-views-")))
        settings = settings.model_copy(update=given)
        engine = build_engine(settings, list(workers), shipped=True)
        signals.on_further.append(engine.hurry)
        ends.push_async_callback(engine.stop)
        await engine.start()
        gateway = GatewayServer(with_free_port(settings))
        ends.push_async_callback(gateway.stop)
        await gateway.start()
        yield System(settings, of_folder, broker, engine, gateway)


def with_free_port(settings: Settings) -> Settings:
    """The settings, with port 0 (any free one) for the gateway when theirs is taken."""
    gateway = settings.gateway
    family = socket.AF_INET6 if ":" in gateway.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((gateway.host, gateway.port))
        except OSError:
            return settings.model_copy(update={"gateway": gateway.model_copy(update={"port": 0})})
    return settings


def dev(
    workers: WorkerPaths = None,
    ephemeral: Annotated[bool, typer.Option("--ephemeral", help="Throw the broker's data away at the end.")] = False,
    namespace: NamespaceOption = None,
) -> None:
    """Run broker, engine and gateway in this terminal until Ctrl-C. The data are kept for the next start."""
    with errors_shown():
        settings = base_settings(namespace=namespace)
        log_to_stderr(settings, default="WARNING")
        if "log_level" not in settings.model_fields_set:
            logging.getLogger("headrace.job").setLevel(logging.INFO)  # what the user's own workers say
        load_workers(workers or [])  # a wrong path is told before a broker is started
        request = BrokerRequest(options=LocalBrokerOptions(ephemeral=ephemeral))
        typer.echo("Starting broker, engine and gateway ...")
        with suppress(StopNow), interruptible_broker(settings, request) as (broker, stopped):
            run(_serve(settings, broker, stopped, workers=workers or [], ephemeral=ephemeral))


async def _serve(settings: Settings, broker: Broker, stopped: threading.Event, *, workers: list[str], ephemeral: bool) -> None:
    console = output_console()
    problem: str | None = None
    with StopSignals() as signals:
        started: list[WorkerEngine] = []
        signals.on_first.append(lambda: console.print(_ending(started, settings.engine.grace_seconds)))
        if stopped.is_set():  # before the signals were the event loop's
            signals.request()
        with suppress(StopRequested):
            async with AsyncExitStack() as ends:
                starting = running_system(settings, broker, signals, workers=workers, ephemeral=ephemeral)
                system = await signals.unless_requested(ends.enter_async_context(starting))
                started.append(system.engine)
                _announce(system, console)
                problem = await signals.unless_requested(_broken(system))
                typer.echo(f"Error: {problem}", err=True)
    leave_threads_behind(1 if problem else 0)


def _ending(engines: Sequence[WorkerEngine], grace: float) -> str:
    """What is said when the end is asked for."""
    running = sum(group.health().running for engine in engines for group in engine.groups)
    if not running:
        return "Ending ..."
    jobs = "the running job gets" if running == 1 else f"{running} running jobs get"
    return f"Ending: {jobs} {grace:g} s; a second Ctrl-C ends them at once ..."


def _announce(system: System, console: Console) -> None:
    url = system.gateway.url
    console.print("broker  ", system.broker.description, markup=False, highlight=False)
    console.print("engine  ", f"runs {', '.join(system.engine.workers)}", markup=False, highlight=False)
    console.print("gateway ", f"{url}/tools   described by {url}/openapi.json", markup=False, highlight=False)
    if system.broker.kind == "running":
        console.print(_JOINED, markup=False, highlight=False)
    wanted = system.settings.gateway.port
    if wanted and not url.endswith(f":{wanted}"):
        console.print(f"Port {wanted} is taken already, so the gateway has a free one.", markup=False, highlight=False)
    console.print("Ctrl-C ends all three." if isinstance(system.broker, OwnedBroker) else "Ctrl-C ends both, and not the broker.")


async def _broken(system: System) -> str:
    """Returns, with what to tell the user, when the engine has ended by itself, or the broker of this folder is gone.

    A broker that the settings name may come back, and is waited for.
    """
    engine = asyncio.create_task(system.engine.ended())
    joined = system.broker.kind == "running"
    looks = 0
    try:
        while not engine.done():
            if isinstance(system.broker, OwnedBroker) and not system.broker.running:
                return "The broker ended by itself."
            if joined:
                # One that has taken its place, at this address or another, has other data than this one began with.
                note = await asyncio.to_thread(running_broker, system.settings_of_folder)
                looks = 0 if note is not None and note.bootstrap_servers == system.broker.bootstrap_servers else looks + 1
                if looks >= _LOOKS_IN_VAIN:
                    return (
                        f"The broker at {system.broker.bootstrap_servers}, which another command of this folder ran, is gone: "
                        "this one has ended, too. Start it again, and it runs a broker of its own."
                    )
            await asyncio.wait({engine}, timeout=_ALIVE_CHECK_SECONDS)
        return str(engine.result())
    finally:
        engine.cancel()
