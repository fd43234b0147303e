"""What all commands share: how they find their settings, how they log, and how an error ends them."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, redirect_stdout
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn, TextIO, TypeVar

import typer
from rich.text import Text

from headrace.errors import ArgumentsInvalid, HeadraceError, JobUnknown
from headrace.log_lines import stderr_handler

# Every command imports this module, also for its help: what takes long to import is imported where it is used.
if TYPE_CHECKING:
    from headrace.broker import Broker, BrokerRequest
    from headrace.client import Client
    from headrace.settings import Settings

BootstrapServers = Annotated[str | None, typer.Option(help="Addresses of the brokers, as host:port,host:port.")]
NamespaceOption = Annotated[str | None, typer.Option(help="The first part of every topic's name. [default: headrace]")]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

ResultT = TypeVar("ResultT")
ConnectionT = TypeVar("ConnectionT")

_HOW_TO_NAME_A_JOB = "An id is given whole, and not shortened: `headrace jobs` lists the newest jobs with theirs."

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
# How long a command says nothing while it waits for a broker.
_SILENCE_SECONDS = 1.5
# Libraries that log, and the least severe of it that tells a user something.
_OTHERS = {"aiokafka": logging.ERROR, "uvicorn.error": logging.WARNING, "mcp.server": logging.WARNING}
# What could move a terminal's cursor or change its title: all control characters but tabs and line breaks.
_CONTROLS = dict.fromkeys({*range(32), *range(127, 160)} - {9, 10})

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopNow(BaseException):
    """A signal asked for the end."""


def base_settings(bootstrap_servers: str | None = None, namespace: str | None = None) -> Settings:
    """Settings from the environment, with the options over them. No broker need be known."""
    from headrace.settings import load_settings

    given = {"bootstrap_servers": bootstrap_servers, "namespace": namespace}
    return load_settings(**{name: value for name, value in given.items() if value is not None})


def settings_from(bootstrap_servers: str | None = None, namespace: str | None = None) -> Settings:
    """Settings for a command that needs a broker: the one of the option, of the environment, or of this folder.

    Raises:
        ConfigurationError: a setting is wrong, or no broker is known.
    """
    from headrace.broker.discovery import with_broker_of_this_folder

    return with_broker_of_this_folder(base_settings(bootstrap_servers, namespace))


@contextmanager
def errors_shown() -> Iterator[None]:
    """Turns an error that headrace raises on purpose into one line for the user, and exit code 2."""
    try:
        yield
    except HeadraceError as error:
        hint = f" {_HOW_TO_NAME_A_JOB}" if isinstance(error, JobUnknown) else ""
        typer.echo(f"Error: {error}{hint}", err=True)
        raise typer.Exit(EXIT_USAGE) from None


@contextmanager
def arguments_as_options(**options: str) -> Iterator[None]:
    """Has an error of a function name the options of its command, where by itself it names the function's arguments.

    Args:
        options: by argument, which errors have in backticks.
    """
    try:
        yield
    except ArgumentsInvalid as error:
        text = str(error)
        for argument, option in options.items():
            text = text.replace(f"`{argument}`", option)
        raise ArgumentsInvalid(text) from error


@contextmanager
def output_apart() -> Iterator[TextIO]:
    """Standard output for what the command says itself: what workers print meanwhile, in any thread, goes to standard error."""
    output = sys.stdout
    with redirect_stdout(sys.stderr):
        yield output


def exit_interrupted() -> NoReturn:
    """Ends a command that Ctrl-C broke off."""
    typer.echo("Interrupted.", err=True)
    raise typer.Exit(EXIT_INTERRUPTED) from None


def log_to_stderr(settings: Settings, *, default: str | None = None) -> None:
    """Sends headrace's log to standard error; of the libraries', only what headrace does not say itself.

    Args:
        default: the least severe level that is shown when the user has not set one, where it is not the settings' default.
    """
    level = settings.log_level if default is None or "log_level" in settings.model_fields_set else default
    logging.basicConfig(level=level, handlers=[stderr_handler()])
    for name, least in _OTHERS.items():
        logging.getLogger(name).setLevel(least)


def ask(
    bootstrap_servers: str | None,
    namespace: str | None,
    question: Callable[[Client], Awaitable[ResultT]],
    *,
    nothing: ResultT | None = None,
) -> ResultT:
    """What a client answers. An error that headrace raises on purpose ends the command, as by `errors_shown`.

    Args:
        nothing: the answer where the cluster has no topic of the namespace, which is told on standard error. A client would make
            topics and a view of it; without this one is asked all the same, and so it is of a sandbox, where it makes none.
    """
    import asyncio

    with errors_shown():
        settings = settings_from(bootstrap_servers, namespace)
        log_to_stderr(settings, default="WARNING")
        return asyncio.run(_ask(settings, question, nothing))


async def _ask(settings: Settings, question: Callable[[Client], Awaitable[ResultT]], nothing: ResultT | None) -> ResultT:
    from headrace.sandbox_refusal import is_named_like_sandbox

    if nothing is not None and not is_named_like_sandbox(settings.namespace):
        async with opened(_topics_of(settings), settings) as topics:
            if not topics:
                told = f"The cluster has no topic of the namespace {settings.namespace!r}: nobody has used it, or it was removed."
                typer.echo(told, err=True)
                return nothing
    async with opened_client(settings) as client:
        return await question(client)


@asynccontextmanager
async def _topics_of(settings: Settings) -> AsyncIterator[list[str]]:
    """The names of the topics of the settings' namespace. Raises BrokerError."""
    from headrace.kafka.log import KafkaLog

    log = KafkaLog(settings)
    try:
        yield [name for name in await log.topic_names() if name.startswith(f"{settings.namespace}.")]
    finally:
        await log.close()


def opened_client(settings: Settings) -> AbstractAsyncContextManager[Client]:
    """A client for a block, opened as by `opened`."""
    from headrace.client import Client

    return opened(Client(settings), settings)


@asynccontextmanager
async def opened(connection: AbstractAsyncContextManager[ConnectionT], settings: Settings) -> AsyncIterator[ConnectionT]:
    """The connection, open for the block. Where no broker answers at once, the user is told what is waited for, and how long."""
    import asyncio

    told = f"No answer from {settings.bootstrap_servers} yet: trying for {settings.kafka.connect_timeout_seconds:g} s ..."
    patience = asyncio.get_running_loop().call_later(_SILENCE_SECONDS, lambda: typer.echo(told, err=True))
    try:
        async with connection as ready:
            patience.cancel()
            yield ready
    finally:
        patience.cancel()


def plain(text: str, *, style: str = "") -> Text:
    """Text of others for the terminal, as it is: it may look like markup, or hold a terminal's commands."""
    return Text(text.translate(_CONTROLS), style=style)


def warn_of_unknown_worker(name: str | None, known: Iterable[str]) -> None:
    """Says on standard error that there is no worker of the name that was asked for.

    One whose definition is gone may have left jobs, so it is no error; most of all it is a misspelling.
    """
    if name is not None and name not in (defined := sorted(known)):
        typer.echo(plain(f"No worker is named {name!r}. Defined are: {', '.join(defined) or 'none yet'}.").plain, err=True)


@contextmanager
def interruptible_broker(settings: Settings, request: BrokerRequest) -> Iterator[tuple[Broker, threading.Event]]:
    """A broker as `provide_broker` chooses it, and an event that is set by SIGINT, SIGTERM or SIGHUP.

    While the broker starts, a signal breaks that off. Once it runs, nothing interrupts its orderly end.

    Raises:
        StopNow: a signal came before the broker was there; nothing of it is left.
    """
    from headrace.broker import provide_broker

    stopped = threading.Event()
    starting = True

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stopped.set()
        if starting:
            raise StopNow

    # A SIGHUP that the process was started to ignore, as `nohup` has it, stays ignored.
    hung_up_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    taken = [number for number in STOP_SIGNALS if not (hung_up_ignored and number is signal.SIGHUP)]
    before = {number: signal.signal(number, on_signal) for number in taken}
    try:
        with provide_broker(settings, request) as broker:
            starting = False
            yield broker, stopped
    finally:
        starting = False
        for number, handler in before.items():
            signal.signal(number, handler)
