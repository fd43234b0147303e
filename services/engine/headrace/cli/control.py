"""`headrace jobs cancel`, `headrace workers pause` and `headrace workers resume`: what is asked of the engines."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from headrace.cli.common import AsJson, BootstrapServers, NamespaceOption, ask, plain
from headrace.core.status import JobStatus

WorkerName = Annotated[str, typer.Argument(help="The worker's name, as `headrace workers` has it.")]


def cancel(
    job_id: Annotated[str, typer.Argument(help="The job's id.")],
    wait: Annotated[float, typer.Option(min=0, max=3_600, help="Seconds to wait for the job's end.")] = 5.0,
    bootstrap_servers: BootstrapServers = None,
    namespace: NamespaceOption = None,
    as_json: AsJson = False,
) -> None:
    """Cancel a job: one that waits never starts, one that runs is stopped. What it has done already is not undone."""
    job = ask(bootstrap_servers, namespace, lambda client: client.cancel_job(job_id, wait=wait))
    if as_json:
        Console().print_json(data=job.to_wire())
        return
    typer.echo(plain(f"Job {job.id} is {job.status.value}.").plain)
    if job.status in (JobStatus.QUEUED, JobStatus.RUNNING):
        typer.echo("It will be cancelled as soon as an engine hears of it, or when its attempt lets itself be stopped.", err=True)


def pause(worker: WorkerName, bootstrap_servers: BootstrapServers = None, namespace: NamespaceOption = None) -> None:
    """Have all engines start no job of a worker, until it is resumed. Jobs are accepted, and what runs goes on."""
    ask(bootstrap_servers, namespace, lambda client: client.pause_worker(worker))
    typer.echo(f"{worker} is paused. `headrace workers resume {worker}` ends that.")


def resume(worker: WorkerName, bootstrap_servers: BootstrapServers = None, namespace: NamespaceOption = None) -> None:
    """End the pause of a worker."""
    ask(bootstrap_servers, namespace, lambda client: client.resume_worker(worker))
    typer.echo(f"{worker} is not paused.")
