"""Taking records out of a consumer as they were decoded, without the object that the client makes of each.

That object tells topic, partition, and what else can be known of a record; to make it costs as much as all of the decoding. Here
a fetch is taken whole or not at all: whatever is unusual about one is left to aiokafka's own way of reading, which knows what is
to be done, and said.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiokafka.consumer.fetcher import READ_UNCOMMITTED, FetchResult
from aiokafka.errors import CorruptRecordException

_UNUSUAL: Final[Any] = None


async def wait_for_records(consumer: Any, timeout: float) -> None:
    """Returns when there is something to be taken, or something went wrong, or after so many seconds."""
    fetcher = consumer._fetcher
    if not fetcher._records:
        waiter = fetcher._create_fetch_waiter()
        try:
            await asyncio.wait([waiter], timeout=timeout)
        finally:
            waiter.cancel()


def take_unplaced(consumer: Any) -> dict[Any, list[Any]] | None:
    """All records that are there, by partition; the consumer's positions are behind them then.

    None where anything is unusual: an error, a batch that cannot be decoded, or a consumer that reads what transactions committed
    only. What was taken out by then is lost: the consumer must go back to where it stood.
    """
    fetcher = consumer._fetcher
    if fetcher._isolation_level != READ_UNCOMMITTED:
        return _UNUSUAL
    found: dict[Any, list[Any]] = {}
    for partition in list(fetcher._records):
        result = fetcher._records[partition]
        if type(result) is not FetchResult:
            return _UNUSUAL
        # What was fetched before the partition was assigned anew, or paused, is dropped.
        taken = _take(result) if result.check_assignment(partition) else []
        if taken is None:
            return _UNUSUAL
        if taken:
            found[partition] = taken
        del fetcher._records[partition]
        fetcher._notify(fetcher._wait_consume_future)
    return found


def _take(result: Any) -> list[Any] | None:
    """What one fetch brought of a partition, and moves the position past it; None where it cannot be decoded."""
    fetched, records = result._partition_records, []
    # It refers back to what it would read: with it some megabytes would stay until the garbage collector comes by.
    fetched._records_iterator = None
    first = fetched.next_fetch_offset
    try:
        while fetched._records.has_next():
            batch = fetched._records.next_batch()
            if not batch.validate_crc():
                raise CorruptRecordException
            if not batch.is_control_batch:
                records.extend(batch)
            fetched.next_fetch_offset = batch.next_offset
    except Exception:  # aiokafka meets the same, in its own way
        return _UNUSUAL
    result._update_position()
    if records and records[0].offset < first:
        # A batch is fetched whole, also from its middle.
        records = [record for record in records if record.offset >= first]
    return records
