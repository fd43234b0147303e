"""The records that wait to be written to one partition, gathered in batches.

Records are encoded the moment they are handed over, into a batch that is still open: while an earlier batch of the partition is
under way the open one grows, and what leaves next is one request for all of it. Nothing is kept per record, only per call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import TopicPartition as ClientTopicPartition

from headrace.ports import Acknowledged, AppendFailed, NewRecord, Outcome, TopicPartition

Done = Callable[[Outcome], None]

# Well below what a topic takes. A record that is larger than this makes a batch of its own.
BATCH_BYTES = 512 * 1024

_NO_COMPRESSION = 0


class Batch:
    """Records of one partition that are written together, or not at all."""

    __slots__ = ("_calls", "builder")

    def __init__(self) -> None:
        self.builder = BatchBuilder(BATCH_BYTES, _NO_COMPRESSION)
        self._calls: list[tuple[int, int, Done]] = []

    def add_call(self, first: int, timestamp: int, done: Done) -> None:
        """Remember whom to tell of the records from number `first` on."""
        self._calls.append((first, timestamp, done))

    def acknowledge(self, offset: int, timestamp: int) -> None:
        """Tell every caller: the batch stands at `offset`; `timestamp` is the broker's, or -1 when the records keep theirs."""
        for first, written_at, done in self._calls:
            _tell(done, Acknowledged(offset + first, timestamp if timestamp >= 0 else written_at))

    def fail(self, failure: AppendFailed) -> None:
        """Tell every caller that the records were not written, or that nobody knows."""
        for _, _, done in self._calls:
            _tell(done, failure)


class Lane:
    """One partition: what is gathered for it, and what is under way.

    Attributes:
        in_flight: the batch that was handed to the network and has no answer yet. There is one at most, which keeps the order.
        waiting: whether the lane is in the writer's list of those with something to send.
        not_before: the number of the first producer that may write here; an earlier one has lost count of the sequence.
    """

    __slots__ = ("_filling", "_full", "client_target", "in_flight", "not_before", "target", "waiting")

    def __init__(self, target: TopicPartition) -> None:
        self.target = target
        self.client_target = ClientTopicPartition(*target)
        self.in_flight: Batch | None = None
        self.waiting = False
        self.not_before = 0
        self._filling: Batch | None = None
        self._full: deque[Batch] = deque()

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits to be sent."""
        return self._filling is None and not self._full

    def add(self, records: Sequence[NewRecord], timestamp: int, done: Done) -> None:
        """Encode records behind those that wait already; `done` is told once about all of them."""
        batch = self._filling or self._open()
        first = batch.builder.record_count()
        split: _SplitCall | None = None
        for key, value, headers in records:
            if batch.builder.append(timestamp=timestamp, key=key, value=value, headers=list(headers)) is not None:
                continue
            if batch.builder.record_count() > first:
                split = split or _SplitCall(done)
                split.add_part()
                batch.add_call(first, timestamp, split)
            self._full.append(batch)
            batch = self._open()
            first = 0
            # The first record of a batch is taken whatever its size.
            batch.builder.append(timestamp=timestamp, key=key, value=value, headers=list(headers))
        if split is not None:
            split.add_part()
        batch.add_call(first, timestamp, split or done)

    def take(self) -> Batch:
        """The next batch to send; there must be one."""
        if self._full:
            return self._full.popleft()
        batch, self._filling = self._filling, None
        assert batch is not None
        return batch

    def take_all(self) -> list[Batch]:
        """All that waits, in order."""
        taken = list(self._full)
        if self._filling is not None:
            taken.append(self._filling)
        self._full.clear()
        self._filling = None
        return taken

    def _open(self) -> Batch:
        self._filling = Batch()
        return self._filling


class _SplitCall:
    """The records of one call that went into several batches: its caller hears once, after the last, of the first."""

    __slots__ = ("_done", "_first", "_pending")

    def __init__(self, done: Done) -> None:
        self._done = done
        self._pending = 0
        self._first: Outcome | None = None

    def add_part(self) -> None:
        self._pending += 1

    def __call__(self, outcome: Outcome) -> None:
        self._pending -= 1
        if self._first is None or (isinstance(outcome, AppendFailed) and not isinstance(self._first, AppendFailed)):
            self._first = outcome
        if self._pending == 0:
            self._done(self._first)


def _tell(done: Done, outcome: Outcome) -> None:
    try:
        done(outcome)
    except Exception as error:
        # The other callers of the batch must hear all the same.
        context = {"message": "a callback of an acknowledged write failed", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)
