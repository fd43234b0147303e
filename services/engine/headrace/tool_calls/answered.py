"""Which calls have been answered: what the next owner of a partition has to know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import orjson

from headrace.ports import Log, Record, TopicPartition

ANSWERED_SECONDS: Final = 3600.0
"""For so long after its answer a call that is delivered again is passed over."""

CALL_INVALID: Final = "call_invalid"
OF_NOBODY: Final = frozenset({CALL_INVALID, "unauthenticated"})
"""Codes of refusals by which no call counts as answered: whoever may write to the topic could have others' passed over."""

_FETCH_SECONDS = 1.0


async def answered_calls(log: Log, results: TopicPartition, *, since: int) -> Sequence[str]:
    """The ids of the calls that were answered in a partition, oldest first, up to its end at the time of the call.

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
        found: list[str] = []
        await reader.assign({results: position})
        while position < end:
            for records in (await reader.fetch(timeout=_FETCH_SECONDS)).values():
                found += (record.key.decode(errors="replace") for record in records if record.key is not None and _counts(record))
            position = (await reader.positions())[results]
        return found
    finally:
        await reader.stop()


def _counts(record: Record) -> bool:
    value = record.value or b""
    # Nearly all are told by this, without being read.
    if not any(code.encode() in value for code in OF_NOBODY):
        return True
    try:
        error = orjson.loads(value).get("error")
    except (orjson.JSONDecodeError, AttributeError):
        return False
    return not (isinstance(error, dict) and error.get("code") in OF_NOBODY)
