"""`headrace jobs cancel`, `headrace workers pause` and `headrace workers resume`: what is asked of the engines."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.console import Console

from headrace.cli.common import BootstrapServers, NamespaceOption, errors_shown, log_to_stderr, plain, settings_from
from headrace.cli.inspect import AsJson
from headrace.client import Client
from headrace.core.status import JobStatus
from headrace.models import Job
from headrace.settings import Settings

WorkerName = Annotated[str, typer.Argument(help="The worker's name, as `headrace workers` has it.")]


def cancel(
    job_id: Annotated[str, typer.Argument(help="The job's id.")],
    wait: Annotated[float, typer.Option(min=0, max=3_600, help="Seconds to wait for the job's end.")] = 5.0,
    bootstrap_servers: BootstrapServers = None,
    namespace: NamespaceOption = None,
    as_json: AsJson = False,
) -> None:
    """Cancel a job: one that waits never starts, one that runs is stopped. What it has done already is not undone."""
    with errors_shown():
        settings = settings_from(bootstrap_servers, namespace)
        log_to_stderr(settings, default="WARNING")
        job = asyncio.run(_cancel(settings, job_id, wait))
    if as_json:
        Console().print_json(data=job.to_wire())
        return
    typer.echo(plain(f"Job {job.id} is {job.status.value}.").plain)
    if job.status in (JobStatus.QUEUED, JobStatus.RUNNING):
        typer.echo("It will be cancelled as soon as an engine hears of it, or when its attempt lets itself be stopped.", err=True)


def pause(worker: WorkerName, bootstrap_servers: BootstrapServers = None, namespace: NamespaceOption = None) -> None:
    """Have all engines start no job of a worker, until it is resumed. Jobs are accepted, and what runs goes on."""
    with errors_shown():
        settings = settings_from(bootstrap_servers, namespace)
        log_to_stderr(settings, default="WARNING")
        asyncio.run(_pause(settings, worker))
    typer.echo(f"{worker} is paused. `headrace workers resume {worker}` ends that.")


def resume(worker: WorkerName, bootstrap_servers: BootstrapServers = None, namespace: NamespaceOption = None) -> None:
    """End the pause of a worker."""
    with errors_shown():
        settings = settings_from(bootstrap_servers, namespace)
        log_to_stderr(settings, default="WARNING")
        asyncio.run(_resume(settings, worker))
    typer.echo(f"{worker} is not paused.")


async def _cancel(settings: Settings, job_id: str, wait: float) -> Job:
    async with Client(settings) as client:
        return await client.cancel_job(job_id, wait=wait)


async def _pause(settings: Settings, worker: str) -> None:
    async with Client(settings) as client:
        await client.pause_worker(worker)


async def _resume(settings: Settings, worker: str) -> None:
    async with Client(settings) as client:
        await client.resume_worker(worker)
