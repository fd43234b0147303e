"""Answers calls: each is done once, when it is its turn."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from headrace.errors import RecordUndecodable
from headrace.ports import Record
from headrace.tool_calls.answers import INVALID, CallAnswers
from headrace.tool_calls.calls import (
    FOR_NOW_HEADER,
    MAY_BE_DONE_HEADER,
    CallKey,
    OwnedCall,
    ReceivedCall,
    owner_headers,
    readable_id,
    received,
    size_of,
)
from headrace.tool_calls.partition import CallPartition
from headrace.tool_calls.places import Places
from headrace.tool_calls.waiting import WaitingCalls
from headrace.tool_models import PASSING_CODES, LastingRefusal, ToolError, ToolRefusal, ToolSuccess

_logger = logging.getLogger(__name__)

_INTERNAL: Final = "internal_error"
_MAY_BE_DONE: Final = "What was asked for may have been done, and is not done again by this callId: look before you call anew."

Identify = Callable[[ReceivedCall], Awaitable[OwnedCall | ToolRefusal]]
Refused = Callable[[str], None]
"""Is told of a record that was refused because it is no call, with the refusal's code. It raises nothing."""


class CallServer:
    """Does the calls of a consumer.

    Args:
        identify: finds out whose a call is; of one of which that is not known, it is the refusal. It raises nothing but the
            cancellation of its task.
        refused: told of each record that is no call; nobody is when left out.
        concurrency: how many calls may be done at a time.
        shared: whether callers of several owners write to the topic of calls.
    """

    def __init__(
        self, identify: Identify, answers: CallAnswers, *, refused: Refused | None, concurrency: int, shared: bool
    ) -> None:
        self._identify = identify
        self._refused = refused
        self._answers = answers
        self._places = Places(concurrency)
        self._waiting = WaitingCalls(shared, lambda: asyncio.get_running_loop().time())

    @property
    def full(self) -> bool:
        """Whether so many calls wait that nothing more is to be read."""
        return self._waiting.full

    def serve(self, partition: CallPartition, record: Record) -> Coroutine[Any, Any, None]:
        """What answers the call in a record, if it is to be answered; then the offset may pass it. Of the record it keeps no more
        than the call, for that may wait for long."""
        try:
            call = received(record)
        except RecordUndecodable as error:
            return self._refuse(partition, record, str(error), readable_id(record))
        except Exception as error:
            _logger.error("a record of %s cannot be read", record.topic, exc_info=error)
            return self._refuse(partition, record, "it cannot be read", readable_id(record))
        if record.key != call.call_id.encode():
            # So it may stand in another partition than when it is sent again, and would be done there, too.
            return self._refuse(partition, record, "the record's key is not its callId, or it has none", call.call_id)
        return self._answer(partition, record.offset, size_of(record), call)

    async def _refuse(self, partition: CallPartition, record: Record, problem: str, call_id: str | None) -> None:
        await self._answers.refuse(partition, record, problem, call_id)
        if not partition.lost and self._refused is not None:
            self._refused(INVALID)
        partition.finish(record.offset)

    async def _answer(self, partition: CallPartition, offset: int, size: int, call: ReceivedCall) -> None:
        owned = await self._owned(call)
        if isinstance(owned, ToolRefusal):
            await self._answers.tell_nobody(partition, call.call_id, owned)
        else:
            await self._do_once(partition, offset, size, CallKey(call.call_id, owned.owner), owned)
        partition.finish(offset)

    async def _owned(self, call: ReceivedCall) -> OwnedCall | ToolRefusal:
        try:
            return await self._identify(call)
        except (Exception, asyncio.CancelledError) as error:
            if _is_given_up(error):
                raise
            _logger.error("it cannot be told whose a tool call is", exc_info=error)
            message = "The gateway failed unexpectedly before anything was done: send the call again."
            return ToolRefusal(error=ToolError(code=_INTERNAL, message=message))

    async def _do_once(self, partition: CallPartition, offset: int, size: int, key: CallKey, call: OwnedCall) -> None:
        caller = key.owner if call.caller is None else call.caller
        turned_away = self._waiting.turns_away(caller, call.at_once)
        refusal: ToolRefusal | None = None
        with self._waiting.held(caller, size) as line, partition.waits(offset):
            while (first := partition.doing(key, offset)) is not None:
                # What comes of it may be that its credential does not count any more, and this one's does.
                await asyncio.wait([first])
            if not partition.is_new(key, offset):
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
            await self._done(partition, key, await _outcome(call))

    async def _done(self, partition: CallPartition, key: CallKey, answer: ToolSuccess | ToolRefusal) -> None:
        headers = owner_headers(key.owner)
        if isinstance(answer, LastingRefusal):
            headers.append((MAY_BE_DONE_HEADER, b"true"))
            message = f"{answer.error.message} {_MAY_BE_DONE}"
            answer = LastingRefusal(error=ToolError(code=answer.error.code, message=message))
        elif isinstance(answer, ToolRefusal) and answer.error.code in PASSING_CODES:
            await self._answers.reply(partition, key.call_id, answer, [*headers, (FOR_NOW_HEADER, b"true")])
            partition.given_up(key)
            return
        await self._answers.reply(partition, key.call_id, answer, headers)
        partition.answered(key)


async def _outcome(call: OwnedCall) -> ToolSuccess | ToolRefusal:
    """What comes of a call that is done, also where that ends as nobody expected."""
    try:
        return await call.do()
    except (Exception, asyncio.CancelledError) as error:
        if _is_given_up(error):
            raise
        _logger.error("a tool call failed unexpectedly", exc_info=error)
        return LastingRefusal(error=ToolError(code=_INTERNAL, message="The gateway failed unexpectedly."))


def _is_given_up(error: BaseException) -> bool:
    """Whether the task itself is to end. Who awaits something else that was cancelled meets the same error."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
