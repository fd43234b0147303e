"""Polls of a consumer that get on, whatever stands in the log.

A header's name is text to aiokafka. Whoever writes one that is no UTF-8, which Kafka allows, makes its decoder raise in the
middle of a poll, and again in each that follows. Here such a record comes without its key, value and headers. So do those that
follow it in the batch of its writer, since the decoder gets to none of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord

from headrace.kafka.positions import go_back, known_positions

logger = logging.getLogger(__name__)


class Polling:
    """Asks one consumer for records.

    Args:
        stays: whether a partition is still to be read from where it was when the poll began; asked when that failed.
    """

    def __init__(self, stays: Callable[[Any], bool] = lambda _: True) -> None:
        self._stays = stays
        self._unreadable: dict[Any, int] = {}

    async def poll(
        self, consumer: Any, partitions: Collection[Any], *, timeout: float, maximum: int | None
    ) -> Mapping[Any, Sequence[Any]]:
        """The next records, or nothing after `timeout` seconds. Where it fails, nothing is lost: it is read again.

        Args:
            partitions: only of these; of all when there are none.

        Raises:
            KafkaError: see aiokafka's `getmany`.
        """
        before = known_positions(consumer)
        for partition in [each for each in self._unreadable if not partitions or each in partitions]:
            offset, position = self._unreadable[partition], before.get(partition)
            if position is None or position > offset or partition not in consumer.assignment():
                del self._unreadable[partition]
            elif position < offset:
                # Those that stand before it can be read.
                return await self._get(consumer, [partition], before, timeout, offset - position)
            elif partition not in consumer.paused():
                del self._unreadable[partition]
                consumer.seek(partition, offset + 1)
                return {partition: [_unreadable(partition, offset)]}
        return await self._get(consumer, partitions, before, timeout, maximum)

    async def _get(
        self, consumer: Any, partitions: Collection[Any], before: Mapping[Any, int], timeout: float, maximum: int | None
    ) -> Mapping[Any, Sequence[Any]]:
        try:
            # Its own timeout: a getmany that is cancelled leaves aiokafka's bookkeeping wrong.
            found: Mapping[Any, Sequence[Any]] = await consumer.getmany(
                *partitions, timeout_ms=int(timeout * 1000), max_records=maximum
            )
        except UnicodeDecodeError as error:
            self._unreadable |= _unreadable_offsets(consumer)
            logger.warning("a record cannot be decoded, and is passed on without what it holds: %s", error)
            self._go_back(consumer, before)
            return {}
        except KafkaError:
            self._go_back(consumer, before)
            raise
        return found

    def _go_back(self, consumer: Any, before: Mapping[Any, int]) -> None:
        go_back(consumer, {partition: position for partition, position in before.items() if self._stays(partition)})


def _unreadable_offsets(consumer: Any) -> dict[Any, int]:
    """Where the decoder has given up: the offset after the last record that it got, of partitions whose decoding has ended."""
    found = {}
    for partition, fetched in consumer._fetcher._records.items():
        records = getattr(fetched, "_partition_records", None)
        decoder = getattr(records, "_records_iterator", None)
        if records is not None and decoder is not None and decoder.gi_frame is None:
            found[partition] = records.next_fetch_offset
    return found


def _unreadable(partition: Any, offset: int) -> Any:
    return ConsumerRecord(
        topic=partition.topic,
        partition=partition.partition,
        offset=offset,
        timestamp=-1,
        timestamp_type=0,
        key=None,
        value=None,
        checksum=None,
        serialized_key_size=-1,
        serialized_value_size=-1,
        headers=(),
    )
