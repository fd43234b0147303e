"""A member of the group that answers tool calls.

A call is done when its answer is acknowledged; then, and not before, the group's offset passes it. Whoever takes a
partition over reads first which calls of the last hour have been answered, and does these no more, wherever in the partition they
stand. What was done but not answered when its process died is done once more: by the call's id the tool knows it again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from headrace.codec import decode, encode
from headrace.core.topics import Topic, Topics
from headrace.dead_letters.writing import letter_of
from headrace.errors import BrokerError, RecordUndecodable
from headrace.models import DeadLetterHeaders
from headrace.ports import (
    Acknowledged,
    Committed,
    GroupListener,
    Log,
    NewRecord,
    Record,
    TopicPartition,
)
from headrace.tool_calls.answered import ANSWERED_SECONDS, CALL_INVALID, OF_NOBODY, answered_calls
from headrace.tool_calls.partition import CallPartition
from headrace.tool_calls.standing import Standing
from headrace.tool_models import ToolCall, ToolCallRecord, ToolError, ToolRefusal, ToolResultRecord, ToolSuccess

_logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_POLL_SECONDS_WHILE_FULL = 0.05
_COMMIT_SECONDS = 1.0
_PROBE_SECONDS = 5.0
_APPEND_SECONDS = 10.0
_AGAIN_SECONDS = 1.0
# The whole group waits for it.
_FINISH_SECONDS = 3.0
# It must fit into its topic: an answer that does not would be written again and again, and hold up the partition for ever.
_LARGEST_ANSWER_BYTES = 1_900_000
_CREDENTIAL_HEADER = "authorization"
_BEARER = "bearer "


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


@dataclass(frozen=True, slots=True)
class ReceivedCall:
    """A call, and what its record says of the caller.

    Attributes:
        call: its `id` is the call's.
        credential: what the header `authorization` has after `Bearer`; None where there is none.
        digest: SHA-256 of the record's value, as hexadecimal digits.
    """

    call: ToolCall
    credential: str | None
    digest: str


Answer = Callable[[ReceivedCall], Awaitable[ToolSuccess | ToolRefusal]]


class ToolCallConsumer:
    """Answers calls, as many at a time as it may. An async context manager.

    Args:
        answer: does a call. It raises nothing but the cancellation of its task.
        instance_id: names this process in dead letters.
        now: milliseconds since the Unix epoch.
        concurrency: how many calls may be under way at a time.
    """

    def __init__(
        self,
        log: Log,
        topics: CallTopics,
        answer: Answer,
        *,
        instance_id: str,
        now: Callable[[], int],
        concurrency: int = 100,
    ) -> None:
        self._log = log
        self._topics = topics
        self._answer = answer
        self._instance_id = instance_id
        self._now = now
        self._concurrency = concurrency
        self._writer = log.writer()
        self._partitions: dict[TopicPartition, CallPartition] = {}
        self._recoveries: set[asyncio.Task[None]] = set()
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
        """Takes in nothing more, answers what was taken in, as far as that is done within the grace, and leaves the group."""
        self._stopping = True
        self._standing.over("it was stopped")
        for partition in self._partitions.values():
            partition.closed = True
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
                if partition.live:
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
        works = {work for partition in partitions for work in partition.under_way.values()}
        if not works:
            return
        _, late = await asyncio.wait(works, timeout=seconds)
        for work in late:
            work.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    # --- calls ------------------------------------------------------------------------------------------------------------

    async def _take_in(self) -> None:
        while True:
            open_ones = [partition for partition in self._partitions.values() if partition.ready and not partition.closed]
            free = self._concurrency - sum(len(partition.under_way) for partition in self._partitions.values())
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

    def _take(self, partition: CallPartition, record: Record) -> None:
        if not partition.begin(record.offset):
            return
        try:
            call = _decoded(record)
        except RecordUndecodable as error:
            partition.work(record.offset, self._refuse(partition, record, str(error)))
            return
        assert call.call.id is not None
        if partition.doing(call.call.id, record.offset) is not None:
            partition.work(record.offset, self._do_unless_done(partition, record, call))
        elif partition.is_new(call.call.id, record.offset):
            partition.work(record.offset, self._do(partition, record, call))
        else:
            partition.finish(record.offset)

    async def _do_unless_done(self, partition: CallPartition, record: Record, call: ReceivedCall) -> None:
        """What is under way under this call's id need not be this call: it may be anybody's, and be refused."""
        assert call.call.id is not None
        while (first := partition.doing(call.call.id, record.offset)) is not None:
            await asyncio.wait([first])
        if partition.is_new(call.call.id, record.offset):
            await self._do(partition, record, call)
        else:
            partition.finish(record.offset)

    async def _do(self, partition: CallPartition, record: Record, call: ReceivedCall) -> None:
        assert call.call.id is not None
        answer = await self._answer(call)
        await self._reply(partition, call.call.id, answer)
        if isinstance(answer, ToolRefusal) and answer.error.code in OF_NOBODY:
            partition.given_up(call.call.id)
        else:
            partition.answered(call.call.id)
        partition.finish(record.offset)

    async def _refuse(self, partition: CallPartition, record: Record, problem: str) -> None:
        """What is no call goes to dead-letters. Where it can be seen which one it was to be, its sender is told, too."""
        described = DeadLetterHeaders(
            reason="tool_call_invalid",
            message=problem,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            instance_id=self._instance_id,
        )
        await self._append(*letter_of(record, described, self._topics.dead_letters.name, without={_CREDENTIAL_HEADER}))
        if (call_id := _readable_id(record)) is not None and partition.is_new(call_id, record.offset):
            refusal = ToolRefusal(error=ToolError(code=CALL_INVALID, message=f"This is no tool call: {problem}."))
            await self._reply(partition, call_id, refusal)
            partition.given_up(call_id)
        partition.finish(record.offset)

    async def _reply(self, partition: CallPartition, call_id: str, answer: ToolSuccess | ToolRefusal) -> None:
        target = TopicPartition(self._topics.results.name, partition.source.partition)
        await self._append(target, NewRecord(call_id.encode(), _encoded(call_id, answer)))

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


def _encoded(call_id: str, answer: ToolSuccess | ToolRefusal) -> bytes:
    """The answer as it is written; where it cannot be, a refusal that says so."""
    if isinstance(answer, ToolRefusal):
        return encode(ToolResultRecord(call_id=call_id, ok=False, error=answer.error))
    try:
        value = encode(ToolResultRecord(call_id=call_id, ok=True, data=answer.data))
    except (TypeError, ValueError) as error:
        _logger.error("the answer to a tool call is no JSON, and a refusal is given instead: %s", error)
        message = "The tool gave an answer that is no JSON. What was asked for may have been done."
        return encode(ToolResultRecord(call_id=call_id, ok=False, error=ToolError(code="internal_error", message=message)))
    if len(value) <= _LARGEST_ANSWER_BYTES:
        return value
    message = (
        f"The answer takes {len(value):,} bytes, and a record at most {_LARGEST_ANSWER_BYTES:,}: ask for less, or over HTTP. "
        "What was asked for was done."
    )
    return encode(ToolResultRecord(call_id=call_id, ok=False, error=ToolError(code="answer_too_large", message=message)))


def _decoded(record: Record) -> ReceivedCall:
    asked = decode(ToolCallRecord, record.value)
    call = ToolCall(id=asked.call_id, name=asked.name, arguments=asked.arguments, context=asked.context)
    return ReceivedCall(call, _credential(record), hashlib.sha256(record.value or b"").hexdigest())


def _credential(record: Record) -> str | None:
    for name, value in record.headers:
        if name.lower() == _CREDENTIAL_HEADER:
            text = (value or b"").decode(errors="replace")
            return text[len(_BEARER) :].strip() if text.lower().startswith(_BEARER) else None
    return None


def _readable_id(record: Record) -> str | None:
    """The id of what was to be a call: its key."""
    try:
        call_id = (record.key or b"").decode()
    except UnicodeDecodeError:
        return None
    return call_id if 0 < len(call_id) <= 200 else None
