"""`headrace replay clean`: removes what replays in sandboxes have left behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import orjson
import typer

from headrace.cli.common import (
    EXIT_USAGE,
    AsJson,
    BootstrapServers,
    NamespaceOption,
    errors_shown,
    log_to_stderr,
    settings_from,
)
from headrace.core.topics import IN_SANDBOX_NAMES
from headrace.kafka.log import KafkaLog
from headrace.replay.sandboxes.cleaning import Cleaned, clean_sandboxes
from headrace.replay.sandboxes.markers import FoundMarker
from headrace.runtime import run
from headrace.settings import Settings


def clean(
    every: Annotated[bool, typer.Option("--all", help="Also those whose replay gives signs of life, and ends by that.")] = False,
    bootstrap_servers: BootstrapServers = None,
    namespace: NamespaceOption = None,
    as_json: AsJson = False,
) -> None:
    """Remove the sandboxes that replays have left behind: those that give no sign for a minute, or for 20 s where the process is
    gone from this machine. One that is suspended gives none. What has no marker of a replay is not touched."""
    with errors_shown():
        settings = settings_from(bootstrap_servers, namespace)
        log_to_stderr(settings, default="WARNING")
        cleaned = run(_cleaned(settings, every))
    if as_json:
        found = {"removed": cleaned.removed, "spared": cleaned.spared, "failed": [each for each, _ in cleaned.failed]}
        told = {what: [each.sandbox for each in some] for what, some in found.items()}
        typer.echo(orjson.dumps({**told, "unmarked": cleaned.unmarked}).decode())
    else:
        for each in cleaned.removed:
            typer.echo(f"Removed {each.sandbox}.")
        for each in cleaned.spared:
            typer.echo(f"Left {each.sandbox}: {_why_spared(each, settings.namespace)}")
        if cleaned.unmarked:
            typer.echo(_unmarked(cleaned.unmarked))
        if not any(cleaned):
            typer.echo("No replay has left a sandbox.")
    for _, error in cleaned.failed:
        typer.echo(f"Error: {error}", err=True)
    if cleaned.failed:
        raise typer.Exit(EXIT_USAGE)


async def _cleaned(settings: Settings, every: bool) -> Cleaned:
    log = KafkaLog(settings)
    try:
        return await clean_sandboxes(log, settings, every=every)
    finally:
        await log.close()


def _unmarked(topics: Sequence[str]) -> str:
    what = "the topic" if len(topics) == 1 else f"{len(topics)} topics"
    return (
        f"Left {what} without a marker, of which nobody knows whose they are: {', '.join(topics)}. Who went on looking at a"
        " sandbox while it was removed may have had the brokers make them again. No replay gets their name while they are there:"
        " if nobody needs them, delete them by the tools of your cluster."
    )


def _why_spared(found: FoundMarker, namespace: str) -> str:
    marker = found.marker
    if found.unreadable:
        return f"its topic {found.topic} cannot be read ({found.unreadable}). By its name it is none of {namespace}."
    if found.is_empty:
        return (
            f"nothing stands in {found.topic}, so nobody knows whose it is. If no replay is just beginning, --all removes it"
            f" where its name begins with {namespace}{IN_SANDBOX_NAMES} and it is alone; else delete that topic."
        )
    if marker is None:
        return f"what stands in its topic is no marker of a replay. If nobody needs {found.topic}, delete that topic."
    if marker.namespace != namespace:
        return f"it is of the namespace {marker.namespace}; give --namespace {marker.namespace}."
    where = f"in process {marker.process_id} of {marker.host}"
    if found.is_gone:
        where = f"though its process {marker.process_id} is gone from this machine: in another of that name ({marker.host})"
    return (
        f"its replay runs, {where}: it gave a sign of life while this looked on. It removes this when it ends, as by Ctrl-C"
        " there. --all removes it at once, and ends that replay with an error."
    )
