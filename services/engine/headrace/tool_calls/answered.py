"""Which calls have been answered: what the next owner of a partition has to know."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from headrace.ports import Log, LogReader, Record, TopicPartition
from headrace.tool_calls.calls import CallKey, is_for_now, owner_of
from headrace.tool_calls.partition import MOST_REMEMBERED

ANSWERED_SECONDS: Final = 3600.0
"""For so long after its answer a call that is delivered again is passed over."""

CLOCKS_APART_SECONDS: Final = 300.0
"""The clocks by which calls and answers are written may differ by so much."""

_FETCH_SECONDS = 1.0


async def answered_calls(
    log: Log, calls: TopicPartition, results: TopicPartition, *, committed: int | None, now: int
) -> Sequence[CallKey]:
    """The calls that were answered in a partition, oldest first, up to its end at the time of the call; of more than
    `MOST_REMEMBERED` the last ones.

    They are those of the last hour, and all that may be answers to calls which the group has not passed yet: these come again.

    What was answered to nobody is none of them: whoever may write to the topic could have others' calls passed over. Nor is what
    was refused for now.

    Args:
        calls: where the calls stand.
        results: where the answers do.
        committed: up to where the group has passed the calls; None for nowhere yet.
        now: milliseconds since the Unix epoch.

    Raises:
        BrokerError: the brokers cannot be reached.
    """
    reader = log.reader()
    await reader.start()
    try:
        since = now - int(ANSWERED_SECONDS * 1000)
        if (oldest := await _time_of_next(reader, calls, committed or 0)) is not None:
            since = min(since, oldest - int(CLOCKS_APART_SECONDS * 1000))
        end = (await reader.end_offsets([results]))[results]
        position = (await reader.offsets_since([results], max(0, since)))[results]
        found: deque[CallKey] = deque(maxlen=MOST_REMEMBERED)
        await reader.assign({results: position})
        while position < end:
            records = (await reader.fetch(timeout=_FETCH_SECONDS)).get(results, ())
            found += (key for record in records if (key := _answered(record)) is not None)
            position = (await reader.positions())[results]
        return found
    finally:
        await reader.stop()


async def _time_of_next(reader: LogReader, calls: TopicPartition, offset: int) -> int | None:
    """When the first call from an offset on was written; None where there is none."""
    position = max(offset, (await reader.start_offsets([calls]))[calls])
    end = (await reader.end_offsets([calls]))[calls]
    if position >= end:
        return None
    await reader.assign({calls: position}, ends={calls: position + 1})
    while position < end:
        for record in (await reader.fetch(timeout=_FETCH_SECONDS, maximum=1)).get(calls, ()):
            return record.timestamp
        position = (await reader.positions())[calls]
    return None


def _answered(record: Record) -> CallKey | None:
    owner = owner_of(record.headers)
    if record.key is None or owner is None or is_for_now(record.headers):
        return None
    return CallKey(record.key.decode(errors="replace"), owner)
