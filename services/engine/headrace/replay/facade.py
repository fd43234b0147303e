"""Replays of many jobs from one end to the other: what is recorded, the code that runs it again, and where that happens."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from headrace.abstract_worker import AbstractWorker
from headrace.broker.discovery import given_settings, settings_of_this_folder
from headrace.errors import ConfigurationError, HistoryGone
from headrace.kafka.log import KafkaLog
from headrace.replay.exports.file_history import read_file_history
from headrace.replay.history import History, Span, Wanted
from headrace.replay.recorded.log_history import open_history
from headrace.replay.rerunning.code import by_name
from headrace.replay.rerunning.rerun import Rerunner, RerunOptions
from headrace.replay.sandboxes.sandbox import opened_sandbox, sandbox_settings
from headrace.replay.sandboxes.sandboxed import SandboxRun, check_pacing
from headrace.replay.streams.pacing import Pacing
from headrace.replay.streams.stream import StoredHistory, StreamReplay, left_out, wanted_workers
from headrace.replay.streams.summary import Summary, told_not_in_code
from headrace.replay_errors import SandboxLeft, SandboxLost
from headrace.settings import Settings, load_settings

MOST_THREADS: Final = 200
"""So many plain functions run at a time at most: where the system had no further thread, their jobs would seem to fail."""

Watch = Callable[[StreamReplay, int | None], AbstractAsyncContextManager[None]]
"""Looks on while a replay goes on. Gets how many jobs there are, where that is known before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRequest:
    """Which recorded jobs are to be run again, and how.

    Attributes:
        code: the workers of today.
        span: in which the jobs were accepted; all of an export when None.
        workers: names of those whose jobs are wanted; all that are in the code and have recorded jobs when empty.
        fields: see `Wanted.fields`.
        pacing: how many at a time; of plain functions no more than 200.
        sandbox: whether they go through an engine in a namespace of its own, on the cluster of the settings.
        into: the name of that namespace, `<namespace>.replay-<id>`, or the id alone; one is made up when None.
        keep: whether it is kept afterwards, until `clean` removes it.
        file: an export to take what was recorded from, in place of the cluster.
        live: whether what was not recorded is asked for outside: what that does there happens.
    """

    code: Sequence[AbstractWorker[Any]]
    span: Span | None
    workers: Sequence[str] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    pacing: Pacing = field(default_factory=Pacing)
    sandbox: bool = False
    into: str | None = None
    keep: bool = False
    file: Path | None = None
    live: bool = False


async def replay_stream(request: StreamRequest, settings: Settings | None = None, *, watch: Watch | None = None) -> Summary:
    """Runs recorded jobs of the settings' namespace again, and tells how what came out compares with what was recorded.

    If the request names no workers, jobs of those that are not in the code are counted as such, and not run. Where a sandbox
    cannot be removed afterwards, the summary says so.

    Args:
        settings: from the environment when left out, with the broker that runs for this folder if it names none.

    Raises:
        ConfigurationError: the request cannot be done: a worker is not in the code, two have one name, or the sandbox's name is
            in use, or that of the namespace itself. It is NothingInCode where nothing was ever recorded of the workers of the
            code.
        ArgumentsInvalid: the jobs are to be chosen by what was redacted in the file.
        HistoryGone: the span begins before what is left of the log.
        BrokerError: the brokers cannot be used.
        SandboxLost: the sandbox was removed while the replay ran.
    """
    if request.sandbox:
        check_pacing(request.pacing)
    needs_cluster = request.sandbox or request.file is None
    own = given_settings(settings) or (settings_of_this_folder() if needs_cluster else load_settings())
    sandbox = _settings_of_sandbox(own, request) if request.sandbox else None
    async with AsyncExitStack() as stack:
        history = await stack.enter_async_context(recorded_history(own, request.file))
        history.check_fields(request.fields)
        code = by_name(request.code)
        wanted = Wanted(span=_span(history, request), workers=request.workers, fields=request.fields)
        recorded = await history.recorded_workers()
        others = await left_out(history, wanted, code, recorded)
        names = wanted_workers(request.workers, code, recorded, others)
        wanted = replace(wanted, workers=names)
        chosen = {name: code[name] for name in names}
        options = RerunOptions(live=request.live, threads=min(request.pacing.concurrency, MOST_THREADS))
        rerunner = await stack.enter_async_context(Rerunner(history, chosen.values(), options))
        limits = {name: worker.concurrency for name, worker in chosen.items() if worker.concurrency is not None}
        replay = StreamReplay(history, rerunner, wanted, request.pacing, limits=limits)
        replay.summary.leave_out(others)
        if watch is not None:
            await stack.enter_async_context(watch(replay, await history.count(wanted)))
        try:
            if sandbox is not None:
                await _run_in_sandbox(sandbox, own.namespace, request, chosen, replay)
            else:
                await replay.run()
        except HistoryGone as error:
            raise HistoryGone(" ".join([str(error), *(f"{each}." for each in told_not_in_code(others))])) from None
        replay.summary.left_behind = rerunner.left_behind
        return replay.summary


def _settings_of_sandbox(settings: Settings, request: StreamRequest) -> Settings:
    name = request.into or uuid.uuid4().hex[:8]
    return sandbox_settings(settings, name, request.pacing.concurrency)


async def _run_in_sandbox(
    settings: Settings, live: str, request: StreamRequest, workers: Mapping[str, AbstractWorker[Any]], replay: StreamReplay
) -> None:
    def begin() -> None:
        replay.sandbox = settings.namespace

    log, is_open = KafkaLog(settings), False
    try:
        async with opened_sandbox(log, settings, live, list(workers), keep=request.keep, on_begin=begin) as lost:
            is_open = True
            await SandboxRun(log, settings, workers, replay).run(lost)
        if not request.keep:
            replay.sandbox = None
    except SandboxLost:
        replay.sandbox = None
        raise
    except SandboxLeft as error:
        # All jobs were run: what came of them is not to be lost by this.
        replay.summary.not_removed = str(error)
    finally:
        if not is_open:  # nothing of it is kept
            replay.sandbox = None
        await log.close()


@asynccontextmanager
async def recorded_history(settings: Settings, file: Path | None) -> AsyncIterator[StoredHistory]:
    """What was recorded, for a block: of the settings' namespace, or in an export.

    Raises:
        ExportDamaged: the file is no export, or not all of one.
        BrokerError: the brokers cannot be reached.
    """
    if file is not None:
        yield await asyncio.to_thread(read_file_history, file)
        return
    async with open_history(settings) as history:
        yield history


def _span(history: History, request: StreamRequest) -> Span:
    span = request.span or history.span
    if span is None:
        raise ConfigurationError("Give the span: only an export has one of its own.")
    return span
