"""A member of the group that answers tool calls.

A call is done when its answer is acknowledged; then, and not before, the group's offset passes it. Whoever takes a
partition over reads first which calls of the last hour have been answered, and does these no more, wherever in the partition they
stand. What was done but not answered when its process died is done once more: by the call's id the tool knows it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from headrace.core.topics import Topic, Topics
from headrace.dead_letters.writing import letter_of
from headrace.errors import BrokerError, RecordUndecodable
from headrace.models import DeadLetterHeaders
from headrace.ports import (
    Acknowledged,
    Committed,
    GroupListener,
    Header,
    Log,
    NewRecord,
    Record,
    TopicPartition,
)
from headrace.tool_calls.answered import ANSWERED_SECONDS, answered_calls
from headrace.tool_calls.calls import (
    CREDENTIAL_HEADER,
    FOR_NOW_HEADER,
    CallKey,
    OwnedCall,
    ReceivedCall,
    encoded,
    owner_headers,
    readable_id,
    received,
)
from headrace.tool_calls.partition import CallPartition
from headrace.tool_calls.places import Places
from headrace.tool_calls.standing import Standing
from headrace.tool_calls.waiting import WaitingCalls
from headrace.tool_models import LastingRefusal, ToolError, ToolRefusal, ToolSuccess

_logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_POLL_SECONDS_WHILE_FULL = 0.05
_COMMIT_SECONDS = 1.0
_PROBE_SECONDS = 5.0
_APPEND_SECONDS = 10.0
_AGAIN_SECONDS = 1.0
# The whole group waits for it.
_FINISH_SECONDS = 3.0
_LOOK_SECONDS = 0.1
_INVALID = "call_invalid"
# What is refused so may well be done a while later: the same call, sent again, is a new one, if nothing of it was accepted.
_PASSING: Final = frozenset(
    {"unauthenticated", "rate_limited", "too_many_in_flight", "broker_unavailable", "enqueue_timeout", "configuration_error"}
)


@dataclass(frozen=True, slots=True)
class CallTopics:
    """Where calls come from, and where their answers go.

    Attributes:
        calls, results: have as many partitions as each other: the answer to a call goes into the partition of the same number.
        dead_letters: for what is no call.
    """

    calls: Topic
    results: Topic
    dead_letters: Topic
    group: str

    @classmethod
    def of(cls, topics: Topics, tenant: str | None = None) -> CallTopics:
        """Those of a namespace, or of one tenant in it."""
        return cls(topics.tool_calls(tenant), topics.tool_results(tenant), topics.dead_letters, topics.tool_call_group(tenant))


Identify = Callable[[ReceivedCall], Awaitable[OwnedCall | ToolRefusal]]


class ToolCallConsumer:
    """Answers calls, as many at a time as it may. An async context manager.

    Args:
        identify: finds out whose a call is; of one of which that is not known, it is the refusal. It raises nothing but the
            cancellation of its task.
        instance_id: names this process in dead letters.
        now: milliseconds since the Unix epoch.
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
        concurrency: int = 100,
        shared: bool = True,
    ) -> None:
        self._log = log
        self._topics = topics
        self._identify = identify
        self._instance_id = instance_id
        self._now = now
        self._concurrency = concurrency
        self._writer = log.writer()
        self._partitions: dict[TopicPartition, CallPartition] = {}
        self._recoveries: set[asyncio.Task[None]] = set()
        self._running: list[asyncio.Task[None]] = []
        self._stopping = False
        self._standing = Standing(lambda: asyncio.get_running_loop().time())
        self._places = Places(concurrency)
        self._waiting = WaitingCalls(shared, lambda: asyncio.get_running_loop().time())
        self._consumer = log.group_consumer(topics.calls.name, topics.group, GroupListener(self._assigned, self._revoked))

    async def start(self) -> None:
        """Begins to join the group. Creates the topics that are missing.

        Raises:
            BrokerError: the brokers cannot be reached.
            TopicMisconfigured: a topic exists with settings under which calls could be lost.
        """
        self._standing.joining()
        await self._log.create_topics([self._topics.calls, self._topics.results, self._topics.dead_letters])
        await self._writer.start()
        try:
            await self._consumer.start()
        except BaseException:
            await self._writer.stop(timeout=0)
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
        return self._standing.trouble

    async def stop(self, *, grace_seconds: float = 10.0) -> None:
        """Takes in nothing more, answers what is being done, as far as that is done within the grace, and leaves the group. What
        waits for its turn is left to the next owner."""
        self._stopping = True
        self._standing.over("it was stopped")
        for partition in self._partitions.values():
            partition.closed = True
        self._consumer.pause(self._partitions)
        await self._finish(self._partitions.values(), grace_seconds)
        for task in (*self._running, *self._recoveries):
            task.cancel()
        await asyncio.gather(*self._running, *self._recoveries, return_exceptions=True)
        await self._commit()
        await self._consumer.stop(timeout=2.0)
        await self._writer.stop(timeout=2.0)

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
            recovery = asyncio.create_task(self._recover(partition), name=f"tool-calls-recovery-{source.partition}")
            self._recoveries.add(recovery)
            recovery.add_done_callback(self._recoveries.discard)
            recovery.add_done_callback(self._ended)
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
                    self._consumer.resume([partition.source])
                    self._stand()
                return

    async def _revoked(self, sources: Collection[TopicPartition]) -> None:
        """What is under way is answered, if that takes no longer than a moment; the rest is for the next owner."""
        left = [self._partitions.pop(source) for source in sources if source in self._partitions]
        for partition in left:
            partition.live = False
        self._standing.dealing()
        await self._finish(left, _FINISH_SECONDS)
        await self._commit(left)

    async def _finish(self, partitions: Collection[CallPartition], seconds: float) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        while works := [work for partition in partitions for work in partition.under_way.values() if not work.done()]:
            late = works if clock() >= deadline else [work for partition in partitions for work in partition.waiting_works()]
            for work in late:
                work.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            # What only now turns out to have to wait is left, too.
            await asyncio.wait(works, timeout=min(_LOOK_SECONDS, max(0.0, deadline - clock())))

    # --- calls ------------------------------------------------------------------------------------------------------------

    async def _take_in(self) -> None:
        while True:
            open_ones = [partition for partition in self._partitions.values() if partition.ready and not partition.closed]
            free = self._free()
            sources = [partition.source for partition in open_ones]
            try:
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
        if self._waiting.full:
            return 0
        partitions = self._partitions.values()
        return self._concurrency - sum(len(each.under_way) - len(each.waiting) for each in partitions)

    def _take(self, partition: CallPartition, record: Record) -> None:
        # One that had been read before a stop is left to the next owner, as the offset does not pass it.
        if partition.closed or not partition.begin(record.offset):
            return
        partition.work(record.offset, self._serve(partition, record))

    async def _serve(self, partition: CallPartition, record: Record) -> None:
        await self._answer(partition, record)
        partition.finish(record.offset)

    async def _answer(self, partition: CallPartition, record: Record) -> None:
        try:
            call = received(record)
        except RecordUndecodable as error:
            await self._refuse(partition, record, str(error), readable_id(record))
            return
        if record.key != call.call_id.encode():
            # So it may stand in another partition than when it is sent again, and would be done there, too.
            await self._refuse(partition, record, "the record's key is not its callId, or it has none", call.call_id)
            return
        owned = await self._identify(call)
        if isinstance(owned, ToolRefusal):
            await self._tell_nobody(partition, call.call_id, owned)
        else:
            await self._do_once(partition, record, CallKey(call.call_id, owned.owner), owned)

    async def _do_once(self, partition: CallPartition, record: Record, key: CallKey, call: OwnedCall) -> None:
        caller = key.owner if call.caller is None else call.caller
        turned_away = self._waiting.turns_away(caller, call.at_once)
        refusal: ToolRefusal | None = None
        with self._waiting.held(caller, len(record.value or b"")) as line, partition.waits(record.offset):
            while (first := partition.doing(key, record.offset)) is not None:
                # What comes of it may be that its credential does not count any more, and this one's does.
                await asyncio.wait([first])
            if not partition.is_new(key, record.offset):
                return
            if turned_away and call.turn_away is not None:
                refusal = call.turn_away()
            else:
                await self._places.turn(line, call.turn)
        if refusal is not None:
            await self._done(partition, key, refusal)
            return
        # At once: it is its turn, and a place is free, now.
        with self._places.taken():
            await self._done(partition, key, await call.do())

    async def _done(self, partition: CallPartition, key: CallKey, answer: ToolSuccess | ToolRefusal) -> None:
        if isinstance(answer, ToolRefusal) and not isinstance(answer, LastingRefusal) and answer.error.code in _PASSING:
            await self._reply(partition, key.call_id, answer, [*owner_headers(key.owner), (FOR_NOW_HEADER, b"true")])
            partition.given_up(key)
        else:
            await self._reply(partition, key.call_id, answer, owner_headers(key.owner))
            partition.answered(key)

    async def _refuse(self, partition: CallPartition, record: Record, problem: str, call_id: str | None) -> None:
        """What is no call goes to dead-letters. Where it can be seen which one it was to be, its sender is told, too."""
        described = DeadLetterHeaders(
            reason="tool_call_invalid",
            message=problem,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            instance_id=self._instance_id,
        )
        await self._append(*letter_of(record, described, self._topics.dead_letters.name, without={CREDENTIAL_HEADER}))
        if call_id is not None:
            refusal = ToolRefusal(error=ToolError(code=_INVALID, message=f"This is no tool call: {problem}."))
            await self._tell_nobody(partition, call_id, refusal)

    async def _tell_nobody(self, partition: CallPartition, call_id: str, refusal: ToolRefusal) -> None:
        """Answers what is nobody's, unless somebody waits for the answer to a call of this id, or has it: by the key alone they
        might take this one for it."""
        if not partition.knows(call_id):
            await self._reply(partition, call_id, refusal)

    async def _reply(
        self, partition: CallPartition, call_id: str, answer: ToolSuccess | ToolRefusal, headers: Sequence[Header] = ()
    ) -> None:
        """Writes an answer. The headers say to whom it is given; one that is given to nobody uses up no id."""
        target = TopicPartition(self._topics.results.name, partition.source.partition)
        await self._append(target, NewRecord(call_id.encode(), encoded(call_id, answer), headers))

    async def _append(self, target: TopicPartition, record: NewRecord) -> None:
        """Until it is acknowledged: nothing else says what became of a call."""
        while True:
            [outcome] = await self._writer.append_all([(target, record)], timeout=_APPEND_SECONDS)
            if isinstance(outcome, Acknowledged):
                return
            _logger.warning("a record for %s was not acknowledged, and is written again: %s", target.topic, outcome.reason)
            await asyncio.sleep(_AGAIN_SECONDS)

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
