"""Which calls have been answered: what the next owner of a partition has to know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from headrace.ports import Log, Record, TopicPartition
from headrace.tool_calls.calls import CallKey, is_for_now, owner_of

ANSWERED_SECONDS: Final = 3600.0
"""For so long after its answer a call that is delivered again is passed over."""

_FETCH_SECONDS = 1.0


async def answered_calls(log: Log, results: TopicPartition, *, since: int) -> Sequence[CallKey]:
    """The calls that were answered in a partition, oldest first, up to its end at the time of the call.

    What was answered to nobody is none of them: whoever may write to the topic could have others' calls passed over. Nor is what
    was refused for now.

    Args:
        since: milliseconds since the Unix epoch; older answers are left out.

    Raises:
        BrokerError: the brokers cannot be reached.
    """
    reader = log.reader()
    await reader.start()
    try:
        end = (await reader.end_offsets([results]))[results]
        position = (await reader.offsets_since([results], since))[results]
        found: list[CallKey] = []
        await reader.assign({results: position})
        while position < end:
            for records in (await reader.fetch(timeout=_FETCH_SECONDS)).values():
                found += (key for record in records if (key := _answered(record)) is not None)
            position = (await reader.positions())[results]
        return found
    finally:
        await reader.stop()


def _answered(record: Record) -> CallKey | None:
    owner = owner_of(record.headers)
    if record.key is None or owner is None or is_for_now(record.headers):
        return None
    return CallKey(record.key.decode(errors="replace"), owner)
