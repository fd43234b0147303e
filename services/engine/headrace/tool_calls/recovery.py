"""Learns which calls of a partition are answered, before any of it is done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from headrace.errors import BrokerError
from headrace.ports import Log, TopicPartition
from headrace.tool_calls.answered import ANSWERED_SECONDS, answered_calls
from headrace.tool_calls.call_topics import CallTopics
from headrace.tool_calls.partition import CallPartition

_logger = logging.getLogger(__name__)

_AGAIN_SECONDS: Final = 1.0


class Recoveries:
    """Those that go on.

    Args:
        now: milliseconds since the Unix epoch.
        recovered: told of each partition whose calls may come.
        ended: told of each task that has ended.
    """

    def __init__(
        self,
        log: Log,
        topics: CallTopics,
        *,
        now: Callable[[], int],
        recovered: Callable[[CallPartition], None],
        ended: Callable[[asyncio.Task[None]], None],
    ) -> None:
        self._log = log
        self._topics = topics
        self._now = now
        self._recovered = recovered
        self._ended = ended
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, partition: CallPartition) -> None:
        """Recovers a partition, for as long as it is held."""
        task = asyncio.create_task(self._recover(partition), name=f"tool-calls-recovery-{partition.source.partition}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """Ends all of them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _recover(self, partition: CallPartition) -> None:
        """Learns which calls are answered; then calls may come."""
        results = TopicPartition(self._topics.results.name, partition.source.partition)
        while partition.live:
            try:
                partition.learn(await answered_calls(self._log, results, since=self._now() - int(ANSWERED_SECONDS * 1000)))
            except BrokerError as error:
                _logger.warning("which calls are answered cannot be read, and is tried again: %s", error)
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                if not partition.closed and partition.live:
                    partition.ready = True
                    self._recovered(partition)
                return
