"""What an operator does with workers: they are paused and resumed, and removed when nobody runs them any more."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod

from headrace.acceptance import Acceptance
from headrace.codec import encode
from headrace.control import Control
from headrace.core.records import definition_key
from headrace.core.topics import Topics
from headrace.errors import WorkerInUse, WorkerUnknown
from headrace.ports import Log, LogWriter, NewRecord, TopicPartition
from headrace.submission import check_seconds
from headrace.views.on_demand import JobViewOnDemand
from headrace.views.workers import WorkerDirectory

ENQUEUE_SECONDS = 10.0
_HEARD_SECONDS = 5.0


class Operating(ABC):
    """The part of a `Client` that has to do with how workers are run."""

    topics: Topics
    _log: Log
    _writer: LogWriter
    _directory: WorkerDirectory
    _acceptance: Acceptance
    _control: Control

    @property
    @abstractmethod
    def _view(self) -> JobViewOnDemand:
        """The view of jobs. Raises ConfigurationError when the client is not open."""

    @abstractmethod
    def _check_open(self) -> None:
        """Raises ConfigurationError when the client is not open."""

    async def pause_worker(self, name: str, *, timeout: float = ENQUEUE_SECONDS) -> None:
        """Has all engines start no job of a worker until it is resumed, also those that start later. What runs goes on.

        Raises:
            WorkerUnknown: no such worker is defined.
            BrokerError: the request was not acknowledged in time; the call can be repeated.
        """
        self._check_open()
        await self._acceptance.check_worker(name)
        await self._control.pause(name, timeout=timeout)
        await self._heard()

    async def resume_worker(self, name: str, *, timeout: float = ENQUEUE_SECONDS) -> None:
        """Ends the pause of a worker: its jobs start at once. Raises as `pause_worker`."""
        self._check_open()
        await self._acceptance.check_worker(name)
        await self._control.resume(name, timeout=timeout)
        await self._heard()

    async def remove_worker(self, name: str, *, dry_run: bool = False, timeout: float = ENQUEUE_SECONDS) -> None:
        """Takes a worker out of those that there are: it is offered to nobody any more. An engine that starts with it brings it
        back. Its topics stay, and so do the jobs that have ended, and a pause.

        Args:
            dry_run: only checks whether it can be removed.

        Raises:
            WorkerUnknown: no such worker is defined.
            WorkerInUse: an engine runs it, or jobs of it, of whatever tenant, wait or run; nothing was changed.
            BrokerError: the request was not acknowledged in time; the call can be repeated.
        """
        self._check_open()
        check_seconds(timeout)
        await self._check_unused(name)
        definition = self._directory.definitions.get(name)
        if definition is None:
            known = ", ".join(sorted(self._directory.definitions)) or "none"
            raise WorkerUnknown(f"No worker named {name!r} is defined. Defined are: {known}.")
        if dry_run:
            return
        target = TopicPartition(self.topics.workers.name, 0)
        await self._writer.append(target, NewRecord(definition_key(name), None), timeout=timeout)
        try:
            # A job may have been accepted, or an engine have started, since it was looked for them.
            await self._check_unused(name)
        except WorkerInUse:
            if name not in self._directory.definitions:
                await self._writer.append(target, NewRecord(definition_key(name), encode(definition)), timeout=timeout)
                await self._heard()
            raise

    # --- inside ---------------------------------------------------------------------------------------------------------

    async def _check_unused(self, name: str) -> None:
        """Raises WorkerInUse where an engine runs a worker now, or jobs of it have not ended."""
        view = await self._view.open_up_to_now()
        engines = sum(name in instance.workers for instance in self._directory.live_instances())
        waiting, running = await view.count_unfinished(name, await self._partitions_of(name))
        reasons = [
            *([f"{engines} {'engine runs' if engines == 1 else 'engines run'} it"] if engines else []),
            *([f"{waiting:,} of its jobs {'waits' if waiting == 1 else 'wait'}"] if waiting else []),
            *([f"{running:,} of its jobs {'runs' if running == 1 else 'run'}"] if running else []),
        ]
        if reasons:
            raise WorkerInUse(
                f"The worker {name!r} is not removed: {', and '.join(reasons)}. Stop the engines that run it when its jobs have "
                "ended; what waits is done, or cancelled, by an engine that runs it."
            )

    async def _partitions_of(self, name: str) -> int:
        """How many partitions the worker's queue has; 0 where it has none, and so never had a job."""
        topic = self.topics.jobs_name(name)
        return await self._log.partition_count(topic) if topic in await self._log.topic_names() else 0

    async def _heard(self) -> None:
        """So that `list_workers` tells at once what was asked for."""
        with contextlib.suppress(TimeoutError):
            await self._directory.catch_up(_HEARD_SECONDS)
