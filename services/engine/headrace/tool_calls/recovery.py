"""Learns which calls of a partition are answered, before any of it is done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from headrace.errors import BrokerError
from headrace.ports import Log, TopicPartition
from headrace.tool_calls.answered import answered_calls
from headrace.tool_calls.call_topics import CallTopics
from headrace.tool_calls.partition import CallPartition

_logger = logging.getLogger(__name__)

_AGAIN_SECONDS: Final = 1.0


class Recoveries:
    """Those that go on.

    Args:
        now: milliseconds since the Unix epoch.
        committed: finds out up to where the group has passed a partition. Raises: BrokerError.
        recovered: told of each partition whose calls may come.
        ended: told of each task that has ended.
    """

    def __init__(
        self,
        log: Log,
        topics: CallTopics,
        *,
        now: Callable[[], int],
        committed: Callable[[TopicPartition], Awaitable[int | None]],
        recovered: Callable[[CallPartition], None],
        ended: Callable[[asyncio.Task[None]], None],
    ) -> None:
        self._log = log
        self._topics = topics
        self._now = now
        self._committed = committed
        self._recovered = recovered
        self._ended = ended
        self._tasks: dict[CallPartition, asyncio.Task[None]] = {}

    def begin(self, partition: CallPartition) -> None:
        """Recovers a partition, for as long as it is held."""
        task = asyncio.create_task(self._recover(partition), name=f"tool-calls-recovery-{partition.source.partition}")
        self._tasks[partition] = task
        task.add_done_callback(lambda _: self._tasks.pop(partition, None))
        task.add_done_callback(self._ended)

    def __len__(self) -> int:
        return len(self._tasks)

    def end(self, partitions: Iterable[CallPartition]) -> None:
        """Begins to end those of these partitions."""
        for partition in partitions:
            if (task := self._tasks.get(partition)) is not None:
                task.cancel()

    async def stop(self) -> None:
        """Ends all of them."""
        tasks = list(self._tasks.values())
        self.end(list(self._tasks))
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _recover(self, partition: CallPartition) -> None:
        """Learns which calls are answered; then calls may come."""
        results = TopicPartition(self._topics.results.name, partition.source.partition)
        while partition.live:
            try:
                committed = await self._committed(partition.source)
                found = await answered_calls(self._log, partition.source, results, committed=committed, now=self._now())
            except BrokerError as error:
                _logger.warning("which calls are answered cannot be read, and is tried again: %s", error)
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                partition.learn(found)
                if not partition.closed and partition.live:
                    partition.ready = True
                    self._recovered(partition)
                return
