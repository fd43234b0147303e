"""Says in the topic `workers` which workers this engine has, and that it lives."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Collection

from headrace.codec import encode
from headrace.core.records import definition_key, instance_key
from headrace.core.timestamps import from_milliseconds
from headrace.errors import HeadraceError
from headrace.models import InstanceRecord, WorkerDefinition
from headrace.ports import LogWriter, NewRecord, TopicPartition
from headrace.views.workers import WorkerDirectory

_logger = logging.getLogger(__name__)

_WRITE_SECONDS = 10.0
_WITHDRAW_SECONDS = 2.0


class Presence:
    """Publishes the definitions, and the instance again and again.

    Args:
        directory: what everybody reads of workers: a definition that was taken out of it while the engine lives is put back.
    """

    def __init__(
        self,
        writer: LogWriter,
        directory: WorkerDirectory,
        instance_id: str,
        definitions: Collection[WorkerDefinition],
        now: Callable[[], int],
        interval_seconds: float,
    ) -> None:
        self._writer = writer
        self._directory = directory
        self._target = TopicPartition(directory.topic, 0)
        self._instance_id = instance_id
        self._definitions = definitions
        self._now = now
        self._interval_seconds = interval_seconds
        self._started_at = from_milliseconds(now())

    async def publish(self) -> None:
        """Writes the definitions, which outlive the engine, and its first sign of life."""
        await self._define(self._definitions)
        await self._append(self._sign_of_life())

    async def keep_up(self) -> None:
        """Gives signs of life until it is cancelled."""
        heard = True
        while True:
            await asyncio.sleep(self._interval_seconds)
            try:
                await self._append(self._sign_of_life())
                # Whoever removed the worker may not have seen this engine: it was frozen, or had no broker, or has just started.
                known = self._directory.definitions
                await self._define([each for each in self._definitions if each.name not in known])
            except (HeadraceError, TimeoutError) as error:
                # Once for an outage: each try takes some seconds, and the next follows.
                level = logging.WARNING if heard else logging.DEBUG
                heard = False
                _logger.log(level, "this engine could not say that it lives: %s", str(error) or "no acknowledgement in time")
            else:
                heard = True

    async def withdraw(self) -> None:
        """Takes the instance out of the list."""
        try:
            await self._append(NewRecord(instance_key(self._instance_id), None), timeout=_WITHDRAW_SECONDS)
        except (HeadraceError, TimeoutError) as error:
            _logger.warning("this engine could not take itself out of the list: %s", str(error) or "no acknowledgement in time")

    async def _define(self, definitions: Collection[WorkerDefinition]) -> None:
        for definition in definitions:
            await self._append(NewRecord(definition_key(definition.name), encode(definition)))

    def _sign_of_life(self) -> NewRecord:
        record = InstanceRecord(
            instance_id=self._instance_id,
            workers=[definition.name for definition in self._definitions],
            host=socket.gethostname(),
            process_id=os.getpid(),
            started_at=self._started_at,
            seen_at=from_milliseconds(self._now()),
            presence_interval_seconds=self._interval_seconds,
        )
        return NewRecord(instance_key(self._instance_id), encode(record))

    async def _append(self, record: NewRecord, *, timeout: float = _WRITE_SECONDS) -> None:
        await self._writer.append(self._target, record, timeout=timeout)
