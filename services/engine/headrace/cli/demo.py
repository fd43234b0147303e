"""`headrace demo`: the main job from end to end, on a long conversation."""

from __future__ import annotations

import asyncio
import http.client
import threading
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

import orjson
import typer
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from headrace.broker import Broker, BrokerRequest, LocalBrokerOptions, OwnedBroker
from headrace.cli.common import StopNow, base_settings, errors_shown, exit_interrupted, interruptible_broker, log_to_stderr, plain
from headrace.cli.dev import running_system
from headrace.cli.inspect import jobs_listing, workers_listing
from headrace.cli.listing import Listing, is_bounded, output_console
from headrace.core.status import TERMINAL
from headrace.kafka.log import KafkaLog
from headrace.memory import Memory, ParsedConversation, parse_conversation
from headrace.memory.summarise.tokens import estimate_tokens
from headrace.models import Job, WorkerSummary
from headrace.ports import MemorySnapshot
from headrace.runtime import StopRequested, StopSignals, run
from headrace.settings import Settings
from headrace.tool_models import JobList

SAMPLE = "second-bakery.conversation.json"
_JOB_SECONDS = 60.0
_POLL_SECONDS = 0.05


class ToolRefused(Exception):
    """A tool answered that it would not."""


@dataclass(frozen=True, slots=True)
class Agent:
    """Calls tools over HTTP, as an agent does.

    Attributes:
        url: where the gateway answers.
        headers: the context of its calls.
    """

    url: str
    headers: Mapping[str, str]

    async def call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """The `data` of a tool's answer.

        Raises:
            ToolRefused: the tool refused.
        """
        answer = await asyncio.to_thread(self._post, f"/tools/{tool}", arguments)
        if not answer["ok"]:
            raise ToolRefused(f"{tool}: {answer['error']['code']}: {answer['error']['message']}")
        data: dict[str, Any] = answer["data"]
        return data

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
        try:
            connection.request("POST", path, orjson.dumps(body), {"Content-Type": "application/json", **self.headers})
            return orjson.loads(connection.getresponse().read())
        finally:
            connection.close()


def demo() -> None:
    """Compact the memory of a long fictional conversation: broker, engine and gateway are started, and ended again."""
    console, started = output_console(), time.perf_counter()
    good: bool | None = None
    with errors_shown(), suppress(StopNow):
        settings = base_settings()
        log_to_stderr(settings, default="ERROR")
        settings = settings.model_copy(update={"namespace": f"demo-{time.time_ns() // 1_000_000:x}"})
        title = "headrace: a background job for an agent, on a real Kafka log"
        console.rule(title) if is_bounded(console) else console.print(title)
        console.print("Starting broker, engine and gateway ...")
        request = BrokerRequest(options=LocalBrokerOptions(ephemeral=True), published=False)
        with interruptible_broker(settings, request) as (broker, stopped):
            good = run(_demonstrate(settings, broker, stopped, console))
    if good is None:
        exit_interrupted()
    console.print(f"The demo took {time.perf_counter() - started:.1f} s.")
    if not good:
        raise typer.Exit(1)


async def _demonstrate(settings: Settings, broker: Broker, stopped: threading.Event, console: Console) -> bool:
    """Tells whether the job completed and the memory shrank. A signal ends it in order.

    Raises:
        StopNow: a signal came before it was done.
    """
    conversation = _sample()
    with StopSignals() as signals:
        signals.on_first.append(lambda: console.print("Ending ..."))
        if stopped.is_set():  # before the signals were the event loop's
            signals.request()
        try:
            async with AsyncExitStack() as ends:
                if not isinstance(broker, OwnedBroker):
                    ends.push_async_callback(_delete_topics, settings, broker)
                starting = running_system(settings, broker, signals, ephemeral=True)
                system = await signals.unless_requested(ends.enter_async_context(starting))
                console.print("broker  ", system.broker.description, markup=False)
                console.print(f"gateway  {system.gateway.url}")
                memory = await ends.enter_async_context(Memory(system.settings))
                agent = Agent(system.gateway.url, _context(conversation))
                return await signals.unless_requested(_compact(agent, memory, conversation, console))
        except ToolRefused as refusal:
            console.print(plain(str(refusal), style="red"))
            return False
        except StopRequested:
            raise StopNow from None


def _sample() -> ParsedConversation:
    return parse_conversation(resources.files("headrace").joinpath("samples", SAMPLE).read_bytes())


def _context(conversation: ParsedConversation) -> dict[str, str]:
    return {
        "Headrace-User-Id": conversation.user_id,
        "Headrace-Conversation-Id": conversation.conversation_id,
        "Headrace-Source": "demo",
    }


async def _delete_topics(settings: Settings, broker: Broker) -> None:
    """Leaves nothing on a broker of somebody else."""
    log = KafkaLog(settings.model_copy(update={"bootstrap_servers": broker.bootstrap_servers}))
    try:
        prefix = f"{settings.namespace}."
        await log.delete_topics([name for name in await log.topic_names() if name.startswith(prefix)])
    finally:
        await log.close()


async def _compact(agent: Agent, memory: Memory, conversation: ParsedConversation, console: Console) -> bool:
    names = (conversation.user_id, conversation.conversation_id)
    await memory.import_conversation(conversation)
    before = await memory.read(*names)
    console.print(f"\nA fictional conversation of {len(before.entries)} turns is in memory: {names[1]} of {names[0]}.")
    request = {"kind": "memory_compaction", "userId": names[0], "conversationId": names[1]}
    console.print(f"\n[bold]agent calls[/]  scheduler {orjson.dumps(request).decode()}")
    asked = time.perf_counter()
    receipt = await agent.call("scheduler", request)
    answered = (time.perf_counter() - asked) * 1000
    console.print(f"[bold]receipt[/]      {orjson.dumps(receipt).decode()}   [dim]after {answered:.0f} ms[/]")
    job = await _follow(agent, receipt["jobId"], console)
    for action in ("list_workers", "list_jobs"):
        answer = await agent.call("worker_manager", {"action": action})
        console.print(f'\n[bold]agent calls[/]  worker_manager {{"action":"{action}"}}')
        _listing_of(answer).print(console)
    after = await memory.read(*names)
    _show_memory(before, after, console)
    return _verdict(job, before, after, console)


def _listing_of(answer: dict[str, Any]) -> Listing:
    if "workers" in answer:
        return workers_listing([WorkerSummary.model_validate(each) for each in answer["workers"]])
    return jobs_listing(JobList.model_validate(answer))


async def _follow(agent: Agent, job_id: str, console: Console) -> Job:
    """Prints each status of the job as it comes, until it has ended."""
    shown, started = None, time.perf_counter()
    while True:
        page = JobList.model_validate(await agent.call("worker_manager", {"action": "list_jobs", "limit": 10}))
        job = next((each for each in page.jobs if each.id == job_id), None)
        elapsed = time.perf_counter() - started
        if job is None:
            # Jobs of others may have come after it, in what is listed.
            if elapsed > _JOB_SECONDS:
                raise ToolRefused(f"worker_manager does not list the job {job_id}")
            await asyncio.sleep(_POLL_SECONDS)
            continue
        if job.status != shown:
            console.print(f"[bold]job[/]          {job.status.value:<10} [dim]{elapsed * 1000:.0f} ms after the receipt[/]")
            shown = job.status
        if job.status in TERMINAL or elapsed > _JOB_SECONDS:
            return job
        await asyncio.sleep(_POLL_SECONDS)


def _tokens(snapshot: MemorySnapshot) -> int:
    return sum(estimate_tokens(entry.content) for entry in snapshot.entries)


def _show_memory(before: MemorySnapshot, after: MemorySnapshot, console: Console) -> None:
    table = Table("", "before", "after", title="Memory of the conversation", title_justify="left")
    table.add_row("entries", str(len(before.entries)), str(len(after.entries)))
    table.add_row("tokens (estimated)", f"{_tokens(before):,}", f"{_tokens(after):,}")
    console.print(table)
    for entry in after.entries:
        if entry.role == "summary":
            title = "the summary, in place of the oldest turns"
            console.print(Panel(plain(entry.content), title=title, title_align="left", expand=is_bounded(console)))


def _verdict(job: Job, before: MemorySnapshot, after: MemorySnapshot, console: Console) -> bool:
    if job.status != "completed":
        problem = f"{job.error.type}: {job.error.message}" if job.error else "it has not ended in time"
        console.print(plain(f"The job is {job.status.value}: {problem}", style="red"))
        return False
    if _tokens(after) >= _tokens(before) or len(after.entries) >= len(before.entries):
        console.print("[red]The job completed, and the memory has not shrunk.[/]")
        return False
    console.print(
        f"[green]Done:[/] {len(before.entries)} entries of {_tokens(before):,} tokens became "
        f"{len(after.entries)} of {_tokens(after):,}. Nothing was deleted: the old entries are superseded."
    )
    return True
