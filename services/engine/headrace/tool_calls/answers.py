"""Writes the answers to calls, and what was no call to dead letters."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, NamedTuple

from headrace.dead_letters.writing import letter_of
from headrace.errors import BrokerError
from headrace.models import DeadLetterHeaders
from headrace.ports import Acknowledged, Header, Log, NewRecord, Record, TopicPartition
from headrace.tool_calls.call_topics import CallTopics
from headrace.tool_calls.calls import CREDENTIAL_HEADER, encoded
from headrace.tool_calls.partition import CallPartition
from headrace.tool_models import ToolError, ToolRefusal, ToolSuccess

_logger = logging.getLogger(__name__)

INVALID: Final = "call_invalid"
"""The code of the refusal of a record that is no call."""

LATE_SECONDS: Final = 5.0
"""When an answer could not be written for so long, no more calls are done of which nobody would hear."""

_APPEND_SECONDS = 10.0
_AGAIN_SECONDS = 1.0


class _Unwritten(NamedTuple):
    """A record that is written again and again; `began` is in seconds of the loop's clock."""

    source: TopicPartition
    began: float
    reason: str


class CallAnswers:
    """What is told of the calls of a consumer.

    Args:
        instance_id: names this process in dead letters.
    """

    def __init__(self, log: Log, topics: CallTopics, instance_id: str) -> None:
        self._log = log
        self._topics = topics
        self._instance_id = instance_id
        self._writer = log.writer()
        self._making = asyncio.Lock()
        self._stopped = False
        self._unwritten: dict[object, _Unwritten] = {}

    async def start(self) -> None:
        """Connects. Raises: BrokerError."""
        await self._writer.start()

    async def stop(self, *, timeout: float) -> None:
        """Waits at most `timeout` seconds for what is being written."""
        self._stopped = True
        await self._writer.stop(timeout=timeout)

    def held_up(self) -> dict[TopicPartition, str]:
        """The partitions of calls of which an answer could not be written for `LATE_SECONDS`, and why."""
        since = asyncio.get_running_loop().time() - LATE_SECONDS
        return {each.source: each.reason for each in self._unwritten.values() if each.began <= since}

    async def refuse(self, partition: CallPartition, record: Record, problem: str, call_id: str | None) -> None:
        """What is no call goes to dead-letters. Where it can be seen which one it was to be, its sender is told, too."""
        described = DeadLetterHeaders(
            reason="tool_call_invalid",
            message=problem,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            instance_id=self._instance_id,
        )
        letter = letter_of(record, described, self._topics.dead_letters.name, without={CREDENTIAL_HEADER})
        await self._append(partition, *letter)
        if call_id is not None:
            refusal = ToolRefusal(error=ToolError(code=INVALID, message=f"This is no tool call: {problem}."))
            await self.tell_nobody(partition, call_id, refusal)

    async def tell_nobody(self, partition: CallPartition, call_id: str, refusal: ToolRefusal) -> None:
        """Answers what is nobody's, unless somebody waits for the answer to a call of this id, or has it: by the key alone they
        might take this one for it."""
        if not partition.knows(call_id):
            await self.reply(partition, call_id, refusal)

    async def reply(
        self, partition: CallPartition, call_id: str, answer: ToolSuccess | ToolRefusal, headers: Sequence[Header] = ()
    ) -> None:
        """Writes an answer. The headers say to whom it is given; one that is given to nobody uses up no id."""
        target = TopicPartition(self._topics.results.name, partition.source.partition)
        await self._append(partition, target, NewRecord(call_id.encode(), encoded(call_id, answer), headers))

    async def _append(self, partition: CallPartition, target: TopicPartition, record: NewRecord) -> None:
        """Until it is acknowledged, as nothing else says what became of a call; or until the partition is lost, whose next owner
        says it then."""
        clock = asyncio.get_running_loop().time
        began, token = clock(), object()
        try:
            while not partition.lost:
                [outcome] = await self._writer.append_all([(target, record)], timeout=_APPEND_SECONDS)
                if isinstance(outcome, Acknowledged):
                    return
                _logger.warning("a record for %s was not acknowledged, and is written again: %s", target.topic, outcome.reason)
                self._unwritten[token] = _Unwritten(partition.source, began, str(outcome.reason))
                await asyncio.sleep(_AGAIN_SECONDS)
                await self._make_anew()
        finally:
            self._unwritten.pop(token, None)

    async def _make_anew(self) -> None:
        """Takes another writer in place of one that writes nothing any more."""
        async with self._making:
            if self._writer.failure is None:
                return
            made = self._log.writer()
            try:
                await made.start()
            except BrokerError as error:
                _logger.warning("the writer of answers is to be made anew, and cannot connect: %s", error)
                return
            broken, self._writer = self._writer, made
            await (made if self._stopped else broken).stop(timeout=0)
