"""A member of the group that answers tool calls.

A call is done when its answer is acknowledged; then, and not before, the group's offset passes it. Whoever takes a partition over
reads first which calls of the last hour have been answered, and which of those that the offset has not passed, and does these no
more, wherever in the partition they stand. What was done but not answered when its process died is done once more: by the call's
id the tool knows it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from functools import partial

from headrace.errors import BrokerError
from headrace.ports import Committed, GroupListener, Log, Record, TopicPartition
from headrace.tool_calls.answers import CallAnswers
from headrace.tool_calls.call_topics import CallTopics
from headrace.tool_calls.finishing import finish
from headrace.tool_calls.partition import CallPartition
from headrace.tool_calls.recovery import Recoveries
from headrace.tool_calls.serving import CallServer, Identify, Refused
from headrace.tool_calls.standing import Standing

__all__ = ["CallTopics", "Identify", "ToolCallConsumer"]

_logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_POLL_SECONDS_WHILE_FULL = 0.05
_COMMIT_SECONDS = 1.0
_PROBE_SECONDS = 5.0
_AGAIN_SECONDS = 1.0
# The whole group waits for it.
_FINISH_SECONDS = 3.0


class ToolCallConsumer:
    """Answers calls, as many at a time as it may. An async context manager.

    Args:
        identify: finds out whose a call is; of one of which that is not known, it is the refusal. It raises nothing but the
            cancellation of its task.
        instance_id: names this process in dead letters.
        now: milliseconds since the Unix epoch.
        refused: told of each record that is no call, with the refusal's code; nobody is when left out.
        concurrency: how many calls may be done at a time.
        shared: whether callers of several owners write to the topic of calls.
    """

    def __init__(
        self,
        log: Log,
        topics: CallTopics,
        identify: Identify,
        *,
        instance_id: str,
        now: Callable[[], int],
        refused: Refused | None = None,
        concurrency: int = 100,
        shared: bool = True,
    ) -> None:
        self._log = log
        self._topics = topics
        self._concurrency = concurrency
        self._answers = CallAnswers(log, topics, instance_id)
        self._server = CallServer(identify, self._answers, refused=refused, concurrency=concurrency, shared=shared)
        self._partitions: dict[TopicPartition, CallPartition] = {}
        self._recoveries = Recoveries(
            log, topics, now=now, committed=self._committed, recovered=self._recovered, ended=self._ended
        )
        self._running: list[asyncio.Task[None]] = []
        self._stopping = False
        self._standing = Standing(lambda: asyncio.get_running_loop().time())
        self._consumer = log.group_consumer(topics.calls.name, topics.group, GroupListener(self._assigned, self._revoked))

    async def start(self) -> None:
        """Begins to join the group. Creates the topics that are missing.

        Raises:
            BrokerError: the brokers cannot be reached.
            TopicMisconfigured: a topic exists with settings under which calls could be lost.
        """
        self._standing.joining()
        await self._log.create_topics([self._topics.calls, self._topics.results, self._topics.dead_letters])
        await self._answers.start()
        try:
            await self._consumer.start()
        except BaseException:
            await self._answers.stop(timeout=0)
            raise
        self._running = [
            asyncio.create_task(self._take_in(), name="tool-calls"),
            asyncio.create_task(self._commit_again_and_again(), name="tool-calls-commits"),
            asyncio.create_task(self._probe_again_and_again(), name="tool-calls-probes"),
        ]
        for task in self._running:
            task.add_done_callback(self._ended)

    @property
    def trouble(self) -> str | None:
        """Why no calls are taken in at the moment, or None. A member that has no partition, as others have them all, has none."""
        if (trouble := self._standing.trouble) is not None:
            return trouble
        return next((f"answers cannot be written: {reason}" for reason in self._answers.held_up().values()), None)

    async def stop(self, *, grace_seconds: float = 10.0) -> None:
        """Takes in nothing more, answers what is being done, as far as that is done within the grace, and leaves the group. What
        waits for its turn is left to the next owner."""
        self._stopping = True
        self._standing.over("it was stopped")
        for partition in self._partitions.values():
            partition.closed = True
        self._consumer.pause(self._partitions)
        await finish(self._partitions.values(), grace_seconds)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._recoveries.stop()
        await self._commit()
        await self._consumer.stop(timeout=2.0)
        await self._answers.stop(timeout=2.0)

    async def __aenter__(self) -> ToolCallConsumer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # --- partitions -------------------------------------------------------------------------------------------------------

    def _assigned(self, sources: Collection[TopicPartition]) -> None:
        if self._stopping:
            return
        for source in sources:
            partition = self._partitions[source] = CallPartition(source)
            self._recoveries.begin(partition)
        self._stand()

    async def _committed(self, source: TopicPartition) -> int | None:
        committed = (await self._consumer.committed([source]))[source]
        return None if committed is None else committed.offset

    def _recovered(self, partition: CallPartition) -> None:
        self._consumer.resume([partition.source])
        self._stand()

    def _stand(self) -> None:
        if all(partition.ready for partition in self._partitions.values()):
            self._standing.taking()
        else:
            self._standing.recovering()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Hears of a task that has ended. Without any of them calls would be left lying, and nobody would know."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        _logger.error("Tool calls of %s are not answered any more", self._topics.calls.name, exc_info=error)
        self._standing.over(f"it has ended by itself: {error!r}")

    async def _revoked(self, sources: Collection[TopicPartition]) -> None:
        """What is under way is answered, if that takes no longer than a moment; the rest is for the next owner."""
        left = [self._partitions.pop(source) for source in sources if source in self._partitions]
        for partition in left:
            partition.live = False
        self._standing.dealing()
        self._recoveries.end(left)
        await finish(left, _FINISH_SECONDS)
        await self._commit(left)

    # --- calls ------------------------------------------------------------------------------------------------------------

    async def _take_in(self) -> None:
        while True:
            held_up = self._answers.held_up()
            open_ones = [partition for partition in self._partitions.values() if partition.ready and not partition.closed]
            free = self._free()
            sources = [partition.source for partition in open_ones if partition.source not in held_up]
            try:
                self._consumer.pause(held_up)
                if free > 0:
                    self._consumer.resume(sources)
                    found = await self._consumer.fetch(timeout=_POLL_SECONDS, maximum=free)
                else:
                    # A member that does not poll is taken for dead.
                    self._consumer.pause(sources)
                    found = await self._consumer.fetch(timeout=_POLL_SECONDS_WHILE_FULL, maximum=1)
            except BrokerError as error:
                _logger.warning("tool calls cannot be read, and it is tried again: %s", error)
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            for source, records in found.items():
                if (partition := self._partitions.get(source)) is not None:
                    for record in records:
                        self._take(partition, record)

    def _free(self) -> int:
        """How many calls more may be read."""
        if self._server.full:
            return 0
        partitions = self._partitions.values()
        return self._concurrency - sum(len(each.under_way) - len(each.waiting) for each in partitions)

    def _take(self, partition: CallPartition, record: Record) -> None:
        # One that had been read before a stop is left to the next owner, as the offset does not pass it.
        if partition.closed or not partition.begin(record.offset):
            return
        task = partition.work(record.offset, self._server.serve(partition, record))
        task.add_done_callback(partial(self._call_ended, partition))

    def _call_ended(self, partition: CallPartition, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self._ended(task)
        elif partition.live and not partition.closed:
            _logger.error("A call of %s was given up by nobody, and is not answered", self._topics.calls.name)
            self._standing.over(f"a call ended by itself: {task.get_name()} was cancelled")

    # --- commits ----------------------------------------------------------------------------------------------------------

    async def _commit_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(_COMMIT_SECONDS)
            await self._commit()

    async def _probe_again_and_again(self) -> None:
        """Asks the group for what it has: a client that has lost its brokers reads nothing, and says nothing of it."""
        asked = TopicPartition(self._topics.calls.name, 0)
        while True:
            await asyncio.sleep(_PROBE_SECONDS)
            try:
                await self._consumer.committed([asked])
            except BrokerError as error:
                self._standing.reached(str(error))
            except Exception as error:  # it only asks: calls may be answered all the same
                _logger.warning("the group of %s cannot be asked", self._topics.calls.name, exc_info=True)
                self._standing.reached(repr(error))
            else:
                self._standing.reached()

    async def _commit(self, partitions: Collection[CallPartition] | None = None) -> None:
        due = {
            partition.source: Committed(position)
            for partition in (self._partitions.values() if partitions is None else partitions)
            if (position := partition.to_commit()) is not None
        }
        if not due:
            return
        try:
            if await self._consumer.commit(due):
                for partition in self._partitions.values():
                    if partition.source in due:
                        partition.committed = due[partition.source].offset
        except BrokerError as error:
            _logger.warning("what is answered cannot be committed, and is tried again: %s", error)
