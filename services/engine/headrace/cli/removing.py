"""`headrace workers remove`: a worker that nobody runs any more is offered to nobody any more."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli.common import BootstrapServers, NamespaceOption, ask
from headrace.cli.control import WorkerName


def remove(
    worker: WorkerName,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say whether it can be removed.")] = False,
    bootstrap_servers: BootstrapServers = None,
    namespace: NamespaceOption = None,
) -> None:
    """Forget a worker that no engine runs and that has no job left to do. Its topics and ended jobs stay."""
    ask(bootstrap_servers, namespace, lambda client: client.remove_worker(worker, dry_run=dry_run))
    if dry_run:
        typer.echo(f"{worker} can be removed: no engine runs it, and none of its jobs waits or runs.")
    else:
        typer.echo(f"{worker} is removed. Its topics and its ended jobs stay; an engine that starts with it brings it back.")
