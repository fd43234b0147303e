"""Calls per second of `scheduler` through one gateway, beside a bare endpoint that writes one acknowledged record a call."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from headrace.api_keys.form import digest_of, new_key
from headrace.bench.engine_processes import SupervisedEngine
from headrace.bench.gateway_load import Load, Measured
from headrace.bench.gateway_processes import ServerProcess, get, run_load
from headrace.bench.gateway_worker import WORKER_PATH, GatewayNoOp, call_body
from headrace.bench.history import fill, prepare
from headrace.bench.workload import PARTITIONS, Workload, new_workload
from headrace.codec import encode
from headrace.core.timestamps import from_milliseconds
from headrace.errors import HeadraceError
from headrace.models import ApiKey
from headrace.ports import AppendFailed, NewRecord, TopicPartition
from headrace.runtime import StopRequested, StopSignals, wall_clock
from headrace.settings import Settings

Say = Callable[[str], None]

_WARM_UP_SECONDS: Final = 1.0
_LAYER_SECONDS: Final = 3.0
_LAYER_ROUNDS: Final = 3
_PATIENCE_SECONDS: Final = 120.0
_FILLED_SECONDS: Final = 1_800.0
_LOOK_SECONDS: Final = 0.1
_SCOPES: Final = ("jobs:read", "jobs:write")
_LOOKER: Final = ("jobs:read", "jobs:act-as")
_TOOL_PATH: Final = "/tools/scheduler"
_ACCEPTED: Final = '"scheduled":true'

LAYERS: Final = {
    "http": "HTTP and FastAPI",
    "record": "one acknowledged record",
    "tool": "the tool: arguments, context, limits",
    "key": "the API key",
    "audit": "the audit",
    "view": "the view, which follows the engine, too",
}
"""What a call costs a gateway, the process that keeps its view included, from the inside of a bare endpoint outwards. Each comes
on top of those before it."""


@dataclass(frozen=True, slots=True)
class _Round:
    """A load, what came of it, and the processor time for each call that it took the server until all of its jobs had ended.

    Attributes:
        microseconds: of the server's process and of the one that keeps its view.
        of_view: of the latter.
    """

    measured: Measured
    microseconds: float
    of_view: float


@dataclass(slots=True)
class _Side:
    """A namespace of its own, with an engine, a key for each agent, and servers.

    Attributes:
        bodies: of the calls, one for each agent.
        keys: likewise.
        looker: a key that sees the jobs of all of them.
    """

    name: str
    workload: Workload
    folder: Path
    bodies: list[str]
    keys: list[str] = field(default_factory=list)
    looker: str = ""
    engine: SupervisedEngine | None = None
    servers: list[ServerProcess] = field(default_factory=list)

    async def prepare(self, *, view_jobs: int = 0) -> None:
        """Makes the topics, the keys and the engine, and what `view_jobs` jobs leave in the log."""
        workload = self.workload
        self.folder.mkdir()
        await workload.create()
        await workload.log.create_topics([workload.topics.jobs(GatewayNoOp.name, PARTITIONS), workload.topics.api_keys])
        self.looker, *self.keys = await _make_keys(workload, [_LOOKER, *[_SCOPES] * len(self.bodies)])
        if view_jobs:
            await fill(await prepare(workload.log, workload.topics), view_jobs)
        self.engine = SupervisedEngine(workload.settings, WORKER_PATH, self.folder / "engine.txt")
        await _until(lambda: self.engine is not None and self.engine.has_started, "an engine starts", _PATIENCE_SECONDS)

    async def serve(self, *arguments: str) -> ServerProcess:
        """Starts a server by these arguments of Python; it listens when this returns."""
        environment = {
            "HEADRACE_DATA_DIRECTORY": str(self.folder / "data"),
            "HEADRACE_GATEWAY_AUTHENTICATION": "required",
            "HEADRACE_GATEWAY_HOST": "127.0.0.1",
            "HEADRACE_GATEWAY_PORT": "0",
            # They are counted, and nobody comes near them.
            "HEADRACE_LIMITS_CALLS_PER_SECOND": "1000000",
            "HEADRACE_LIMITS_BURST": "1000000",
            "HEADRACE_LIMITS_CALLS_AT_ONCE": str(2 * len(self.bodies)),
        }
        log = self.folder / f"server-{len(self.servers)}.txt"
        server = ServerProcess(self.workload.settings, log, list(arguments), environment)
        self.servers.append(server)
        await server.started()
        return server

    async def ended(self) -> None:
        """Returns when every job of the queue has ended."""
        log, topic = self.workload.log, self.workload.topics.jobs_name(GatewayNoOp.name)
        group = self.workload.topics.group(GatewayNoOp.name)
        reader = log.reader()
        await reader.start()
        try:
            ends = await reader.end_offsets([TopicPartition(topic, number) for number in range(PARTITIONS)])
        finally:
            await reader.stop()

        async def all_ended() -> bool:
            committed = await log.committed_offsets(group)
            return all(committed.get(partition, 0) >= end for partition, end in ends.items())

        await _until(all_ended, "all jobs end", _PATIENCE_SECONDS)

    async def remove(self) -> None:
        """Ends its processes, and deletes its topics."""
        processes: list[ServerProcess | SupervisedEngine] = [*self.servers, *([] if self.engine is None else [self.engine])]
        for process in processes:
            process.terminate()
        for process in processes:
            await asyncio.to_thread(process.remove)
        await self.workload.remove()


async def measure_gateway(
    settings: Settings,
    *,
    agents: int = 200,
    seconds: float = 60.0,
    rounds: int = 6,
    view_jobs: int = 0,
    say: Say,
) -> dict[str, Any]:
    """Has agents call `scheduler`, each when its last call was answered, and the bare endpoint in rounds between.

    The gateway is the command `headrace gateway`, with a key for each agent, audit, limits and view; an engine does the jobs of
    both sides, each in a namespace of its own. Any call that is not accepted fails the measurement.

    Args:
        seconds: how long each side is called, in all of its rounds.
        view_jobs: so many jobs are in the log before another gateway of the same kind starts, which takes turns with the others.

    Returns the medians of the rounds: `calls_per_second`, `p50_ms` and `p99_ms` until a call was answered, the same as `bare_...`
    of the bare endpoint, and `ratio`; `microseconds_per_call` of processor time of the gateway, and by `layers`, of which
    `view_process_microseconds_per_call` are those of the process that keeps its view, and all others its own process's. With
    `view_jobs` the same as `view_...` of the gateway with the full view, and `view_ratio` to the one that began empty.

    Raises:
        HeadraceError: a call was refused, or something did not start or end in time.
    """
    with StopSignals() as signals:
        try:
            return await signals.unless_requested(_measured(settings, agents, seconds, rounds, view_jobs, say))
        except StopRequested:
            raise HeadraceError("The measurement was stopped before it was done; nothing is left of it.") from None


async def _measured(settings: Settings, agents: int, seconds: float, rounds: int, view_jobs: int, say: Say) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-")))
        bodies = [call_body(agent).decode() for agent in range(agents)]
        sides: dict[str, _Side] = {}
        for name in ("bare", "gateway", *(["view"] if view_jobs else [])):
            sides[name] = _Side(name, new_workload(settings), folder / name, bodies)
            stack.push_async_callback(sides[name].remove)
            await sides[name].prepare(view_jobs=view_jobs if name == "view" else 0)
        bench = _Bench(sides, seconds / rounds, say)
        await bench.start()
        measured = await bench.alternate(rounds)
        layers = await bench.layers(min(rounds, _LAYER_ROUNDS))
    return {
        "agents": agents,
        "seconds": seconds,
        "rounds": rounds,
        **_figures(measured),
        "layers": layers,
        "view_jobs": view_jobs,
    }


class _Bench:
    def __init__(self, sides: Mapping[str, _Side], seconds: float, say: Say) -> None:
        self._sides = sides
        self._seconds = seconds
        self._say = say

    async def start(self) -> None:
        """Starts the servers, and waits until their views have caught up."""
        for name, side in self._sides.items():
            if name == "bare":
                topic = side.workload.topics.jobs_name(GatewayNoOp.name)
                await side.serve("-m", "headrace.bench.gateway_bare", topic, str(PARTITIONS))
                continue
            server = await side.serve("-m", "headrace", "gateway")

            async def ready(server: ServerProcess = server) -> bool:
                return (await get(server.port, "/readyz"))[0] == 200

            await _until(ready, "the view has caught up", _FILLED_SECONDS)

    async def alternate(self, rounds: int) -> dict[str, list[_Round]]:
        """The rounds of each side, after one that is not measured."""
        for name, side in self._sides.items():
            await self._call(side, side.servers[0], _path(name), min(_WARM_UP_SECONDS, self._seconds))
        found: dict[str, list[_Round]] = {name: [] for name in self._sides}
        for number in range(rounds):
            for name, side in self._sides.items():
                found[name].append(await self._call(side, side.servers[0], _path(name), self._seconds))
            newest = {name: each[-1] for name, each in found.items()}
            told = ", ".join(
                f"{name} {each.measured.calls_per_second:,.0f}/s ({each.microseconds:,.0f} µs{_of_which(each)})"
                for name, each in newest.items()
            )
            self._say(f"round {number + 1} of {rounds}: {told}; ratio {_ratio([newest['gateway']], [newest['bare']]):.2f}")
        return found

    async def layers(self, rounds: int) -> dict[str, float]:
        """Microseconds of processor time that each layer adds to a call: they take turns, and the median of the rounds counts."""
        bare, gateway = self._sides["bare"], self._sides["gateway"]
        endpoints = {"http": (bare, bare.servers[0], "/nothing"), "record": (bare, bare.servers[0], "/jobs")}
        for layer in ("tool", "key", "audit"):
            endpoints[layer] = bare, await bare.serve("-m", "headrace.cli.bench_layers", layer), _TOOL_PATH
        endpoints["view"] = gateway, gateway.servers[0], _TOOL_PATH
        seconds = min(_LAYER_SECONDS, self._seconds)
        found: dict[str, list[_Round]] = {layer: [] for layer in endpoints}
        # The first round is thrown away: it makes queues, and compiles what has to be compiled.
        for number in range(rounds + 1):
            for layer, (side, server, path) in endpoints.items():
                found[layer].append(await self._call(side, server, path, seconds if number else min(seconds, _WARM_UP_SECONDS)))
        costs, before = {}, 0.0
        for layer, meaning in LAYERS.items():
            total = _cost(found[layer][1:])
            costs[layer], before = round(total - before, 1), total
            self._say(f"{costs[layer]:8,.0f} µs  {meaning}")
        return costs

    async def _call(self, side: _Side, server: ServerProcess, path: str, seconds: float) -> _Round:
        load = Load(
            port=server.port,
            path=path,
            bodies=side.bodies,
            credentials=side.keys,
            warm_up=min(_WARM_UP_SECONDS, seconds),
            seconds=seconds,
            expected=_ACCEPTED,
        )
        before = server.used()
        measured = await run_load(load)
        if measured.errors or not measured.calls:
            raise HeadraceError(f"{measured.errors} calls of {side.name} were not accepted: {measured.refusals}")
        await side.ended()
        if side.name != "bare":
            await self._seen(side, server, orjson.loads(measured.last)["data"]["jobId"])
        own, children = (1e6 * (now - then) / measured.answered for now, then in zip(server.used(), before, strict=True))
        return _Round(measured, own + children, children)

    async def _seen(self, side: _Side, server: ServerProcess, job_id: str) -> None:
        """Returns when the view shows that a job, which was accepted last, has ended."""

        async def seen() -> bool:
            _, answer = await get(server.port, f"/jobs/{job_id}", side.looker)
            return bool(answer.get("job", {}).get("status") == "completed")

        await _until(seen, "the view shows that a job has ended", _PATIENCE_SECONDS)


def _of_which(newest: _Round) -> str:
    return f", {newest.of_view:,.0f} of them beside" if newest.of_view else ""


def _path(name: str) -> str:
    return "/jobs" if name == "bare" else _TOOL_PATH


def _figures(measured: Mapping[str, Sequence[_Round]]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name, prefix in (("gateway", ""), ("bare", "bare_"), ("view", "view_")):
        if rounds := measured.get(name):
            figures |= {
                f"{prefix}calls_per_second": round(_rate(rounds), 1),
                f"{prefix}p50_ms": round(statistics.median(each.measured.p50 for each in rounds), 2),
                f"{prefix}p99_ms": round(statistics.median(each.measured.p99 for each in rounds), 2),
                f"{prefix}microseconds_per_call": round(_cost(rounds), 1),
            }
            if name != "bare":
                figures[f"{prefix}view_process_microseconds_per_call"] = round(
                    statistics.median(each.of_view for each in rounds), 1
                )
    figures["ratio"] = _ratio(measured["gateway"], measured["bare"])
    if "view" in measured:
        figures["view_ratio"] = _ratio(measured["view"], measured["gateway"])
    return figures


def _ratio(some: Sequence[_Round], others: Sequence[_Round]) -> float:
    """The median of the rounds' ratios: the two loads of a round had the same machine, more or less."""
    ratios = (
        mine.measured.calls_per_second / theirs.measured.calls_per_second for mine, theirs in zip(some, others, strict=True)
    )
    return round(statistics.median(ratios), 3)


def _rate(rounds: Sequence[_Round]) -> float:
    return statistics.median(each.measured.calls_per_second for each in rounds)


def _cost(rounds: Sequence[_Round]) -> float:
    return statistics.median(each.microseconds for each in rounds)


async def _until(check: Callable[[], bool | Awaitable[bool]], what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found if isinstance(found, bool) else await found:
            return
        if time.monotonic() > deadline:
            raise HeadraceError(f"It took more than {seconds:g} s until {what}.")
        await asyncio.sleep(_LOOK_SECONDS)


async def _make_keys(workload: Workload, scopes: Sequence[Sequence[str]]) -> list[str]:
    """The API keys of as many users, written at once."""
    writer = workload.log.writer()
    await writer.start()
    try:
        records, keys = [], []
        for number, each in enumerate(scopes):
            key = new_key(os.urandom)
            made = ApiKey(
                id=key.id,
                name=f"agent {number}",
                subject=f"agent-{number}",
                scopes=list(each),
                digest=digest_of(key),
                created_at=from_milliseconds(wall_clock()),
            )
            records.append((TopicPartition(workload.topics.api_keys.name, 0), NewRecord(key.id.encode(), encode(made))))
            keys.append(key.text)
        outcomes = await writer.append_all(records, timeout=30)
    finally:
        await writer.stop(timeout=10)
    for outcome in outcomes:
        if isinstance(outcome, AppendFailed):
            raise outcome.reason
    return keys
