"""Offsets of a queue at which a fetch returned nothing."""

from __future__ import annotations

import logging

from headrace.engine.partition import OwnedPartition
from headrace.ports import TopicPartition

_logger = logging.getLogger(__name__)

_READINGS = 3


class Gaps:
    """Whether records are missing, or have only not been read.

    A queue has no gaps: nothing compacts it, nobody writes to it in transactions, and what is deleted lies below its watermark.
    So where records seem to be missing the mistake is in the reading, as a rule: they are read again before they are given up.
    """

    def __init__(self) -> None:
        self._read: dict[TopicPartition, tuple[int, int]] = {}

    def is_to_be_read_again(self, source: TopicPartition, partition: OwnedPartition, offset: int) -> bool:
        """What to do when a record comes that does not follow the one before.

        Args:
            partition: of which `next_offset` should have come.
            offset: of the record that came.
        """
        first = partition.next_offset
        seen, readings = self._read.get(source, (first, 0))
        readings = readings + 1 if seen == first else 1
        if readings <= _READINGS:
            self._read[source] = first, readings
            return True
        self.forget(source)
        _logger.error(
            "partition %d of %s has no records from offset %d to %d, also when they are read %d times: they are passed over. "
            "They were deleted, or are damaged on the brokers; jobs that stood there are lost",
            source.partition,
            source.topic,
            first,
            offset - 1,
            readings,
        )
        return False

    def forget(self, source: TopicPartition) -> None:
        """Nothing is known of a partition any more."""
        self._read.pop(source, None)
