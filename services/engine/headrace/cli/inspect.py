"""`headrace workers`, `headrace jobs` and `headrace job`: what there is, what became of it, and a second try."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from headrace.cli.common import AsJson, BootstrapServers, NamespaceOption, ask, errors_shown, plain, warn_of_unknown_worker
from headrace.cli.control import cancel, pause, resume
from headrace.cli.listing import Listing, Row
from headrace.cli.moments import parse_since_and_until
from headrace.cli.removing import remove
from headrace.core.status import JobStatus
from headrace.core.timestamps import format_timestamp, to_milliseconds
from headrace.errors import JobUnknown

# To show the help takes none of these, which take long to import.
if TYPE_CHECKING:
    from headrace.client import Client
    from headrace.models import Job, WorkerSummary
    from headrace.tool_models import JobList

_STATUS_STYLES = {
    JobStatus.COMPLETED: "green",
    JobStatus.FAILED: "red",
    JobStatus.RUNNING: "yellow",
    JobStatus.CANCELLED: "dim",
}

workers_application = typer.Typer(invoke_without_command=True, no_args_is_help=False)


@workers_application.callback()
def workers(
    context: typer.Context,
    bootstrap_servers: BootstrapServers = None,
    namespace: NamespaceOption = None,
    as_json: AsJson = False,
) -> None:
    """List the workers: what each does, and how many engines run it; or pause one."""
    if _is_for_a_subcommand(context):
        return
    nobody: list[WorkerSummary] = []
    if as_json:
        counted = ask(bootstrap_servers, namespace, _counted, nothing=nobody)
        Console().print_json(data=[summary.to_wire() for summary in counted])
    else:
        workers_listing(ask(bootstrap_servers, namespace, lambda client: client.list_workers(), nothing=nobody)).print()


async def _counted(client: Client) -> list[WorkerSummary]:
    """The workers with how many jobs of each wait, run and have failed, as `worker_manager` has them."""
    summaries = await client.list_workers()
    counts = await client.count_jobs([each.name for each in summaries])
    return [each.model_copy(update=counts[each.name]._asdict()) for each in summaries]


workers_application.command()(pause)
workers_application.command()(resume)
workers_application.command()(remove)


jobs_application = typer.Typer(invoke_without_command=True, no_args_is_help=False)


@jobs_application.callback()
def jobs(
    context: typer.Context,
    status: Annotated[JobStatus | None, typer.Option(help="Only jobs that stand so.")] = None,
    worker: Annotated[str | None, typer.Option(help="Only jobs of this worker.")] = None,
    user: Annotated[str | None, typer.Option(help="Only jobs of this user.")] = None,
    conversation: Annotated[str | None, typer.Option(help="Only jobs of this conversation.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Only jobs created since then: 2026-01-31T09:15:00Z, or 2h for two hours ago.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", help="Only jobs created before then; as --since.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 20,
    bootstrap_servers: BootstrapServers = None,
    namespace: NamespaceOption = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first; or do a failed one anew, or cancel one."""
    if _is_for_a_subcommand(context):
        return
    from headrace.tool_models import JobList

    with errors_shown():
        span = parse_since_and_until(since, until)
    wanted: dict[str, Any] = {
        "since": span[0],
        "until": span[1],
        "status": status,
        "worker_name": worker,
        "user_id": user,
        "conversation_id": conversation,
    }

    async def read(client: Client) -> tuple[JobList, list[str]]:
        return await client.list_jobs(limit=limit, **wanted), sorted(await client.worker_definitions())

    page, known = ask(bootstrap_servers, namespace, read, nothing=(JobList(jobs=[]), list[str]()))
    warn_of_unknown_worker(worker, known)
    if as_json:
        Console().print_json(data=page.to_wire())
    else:
        narrowed = any(value is not None for value in (worker, user, conversation, *span))
        nothing = f"No {status.value} jobs" if status else "No jobs"
        jobs_listing(page, nothing + (" match." if narrowed else ".")).print()


@jobs_application.command()
def retry(
    job_id: Annotated[str, typer.Argument(help="The failed job's id.")],
    bootstrap_servers: BootstrapServers = None,
    namespace: NamespaceOption = None,
    as_json: AsJson = False,
) -> None:
    """Do a failed job anew, as a new job with its arguments and context.

    Repeated, it makes no second one, and says how that stands; only where that has failed too does it make another.
    """
    again = ask(bootstrap_servers, namespace, lambda client: client.retry_job(job_id))
    if as_json:
        Console().print_json(data=again.to_wire())
    else:
        typer.echo(plain(_told_of_retry(job_id, again)).plain)


jobs_application.command()(cancel)


def _told_of_retry(job_id: str, again: Job) -> str:
    """Which job does another one anew. One that only waits may have been made just now; any other was there before."""
    done = "is done anew" if again.status is JobStatus.QUEUED else "was done anew already"
    before = "" if again.retry_of == job_id else f", after job {again.retry_of}, which did the same and failed, too"
    return f"Job {job_id} {done}, by job {again.id}{before}: it is {again.status.value}."


def _is_for_a_subcommand(context: typer.Context) -> bool:
    if context.invoked_subcommand is None:
        return False
    sources = (context.get_parameter_source(name) for name in context.params)
    if any(source is not None and source.name != "DEFAULT" for source in sources):
        # A namespace that is passed over in silence would have the job of another one done anew.
        raise typer.BadParameter(f"the options of {context.invoked_subcommand!r} stand behind it.", context)
    return True


def job(
    job_id: Annotated[str, typer.Argument(help="The job's id, as a receipt or `headrace jobs` has it.")],
    bootstrap_servers: BootstrapServers = None,
    namespace: NamespaceOption = None,
) -> None:
    """Print one job whole, with its result, traceback and attempts, as JSON."""

    async def read(client: Client) -> Job:
        found = await client.get_job(job_id)
        if found is None:
            raise JobUnknown(f"There is no job {job_id!r}.")
        return found

    Console().print_json(data=ask(bootstrap_servers, namespace, read).to_wire())


def workers_listing(summaries: Sequence[WorkerSummary]) -> Listing:
    """Workers for the terminal. What one does is cut where the terminal is narrow; what is typed elsewhere is not."""
    columns = ("worker", "kind", "live", "category", "what it does")
    rows = [Row((each.name, each.kind or "-", _live(each), each.category, each.description)) for each in summaries]
    return Listing("Workers", columns, "No workers are defined yet: an engine does that when it starts.", rows)


def _live(summary: WorkerSummary) -> str:
    return f"{summary.live_instances}, paused" if summary.paused else str(summary.live_instances)


def jobs_listing(page: JobList, nothing: str = "No jobs.") -> Listing:
    """Jobs for the terminal; an error stands in a line of its own."""
    columns = ("job", "status", "created", "worker")
    return Listing("Jobs, newest first", columns, nothing, [_job_row(job) for job in page.jobs])


def _job_row(job: Job) -> Row:
    status = Text(job.status.value, style=_STATUS_STYLES.get(job.status, ""))
    notes = [Text(f"{job.error.type}: {job.error.message}", style="red")] if job.error else []
    return Row((job.id, status, format_timestamp(to_milliseconds(job.created_at)), job.worker_name), notes)
