"""The records that wait to be written to one partition, gathered in batches.

What is submitted is encoded the moment it is handed over, into a batch that is still open: while an earlier batch of the
partition is under way the open one grows, and what leaves next is one request for all of it. Nothing is kept per record, only per
call.

What is appended waits unencoded behind that, so that it can be taken back: a record cannot be taken out of a batch.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aiokafka.producer.message_accumulator import BatchBuilder

from headrace.errors import BrokerError
from headrace.ports import Acknowledged, AppendFailed, NewRecord, Outcome, TopicPartition

Done = Callable[[Outcome], None]

# Well below what a topic takes. A record that is larger than this makes a batch of its own.
BATCH_BYTES = 512 * 1024

_NO_COMPRESSION = 0


class _Builder(BatchBuilder):
    """Takes many records at a time, and counts the requests that had this batch in them.

    Attributes:
        requests: how often aiokafka has asked for the bytes of the batch: once for each request.
    """

    _relative_offset: int  # aiokafka's name for the number of records so far

    def __init__(self) -> None:
        super().__init__(BATCH_BYTES, _NO_COMPRESSION)
        self.requests = 0

    def fill(self, records: Iterable[NewRecord], timestamp: int) -> int:
        """Adds records until one does not fit, and returns how many it took; the first of a batch fits whatever its size."""
        if self._closed:
            return 0
        # aiokafka's own call for a single record takes a third as long again as the encoder that it calls.
        encode = self._builder.append
        first = number = self._relative_offset
        try:
            for key, value, headers in records:
                if encode(number, timestamp, key, value, headers if type(headers) is list else list(headers)) is None:
                    self.close()
                    break
                number += 1
        finally:
            self._relative_offset = number
        return number - first

    def _build(self) -> Any:
        self.requests += 1
        return super()._build()


class Batch:
    """Records of one partition that are written together, or not at all."""

    __slots__ = ("_calls", "builder")

    def __init__(self) -> None:
        self.builder = _Builder()
        self._calls: list[tuple[int, int, Done]] = []

    @property
    def requests(self) -> int:
        """How many requests with this batch were made; after the first, an answer says nothing of those before it."""
        return self.builder.requests

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


class Call:
    """Records that wait unencoded, and whom to tell of them. As long as they wait, `Lane.withdraw` takes them back."""

    __slots__ = ("done", "records", "timestamp")

    def __init__(self, records: Sequence[NewRecord], timestamp: int, done: Done) -> None:
        self.records = records
        self.timestamp = timestamp
        self.done = done

    def fail(self, failure: AppendFailed) -> None:
        """Tell the caller that the records were not written."""
        _tell(self.done, failure)


class Lane:
    """One partition: what is gathered for it, and what is under way.

    Attributes:
        in_flight: the batch that was handed to the network and has no answer yet. There is one at most, which keeps the order.
        waiting: whether the lane is in the writer's list of those with something to send.
        not_before: the number of the first producer that may write here; an earlier one has lost count of the sequence.
    """

    __slots__ = ("_filling", "_full", "_loose", "in_flight", "not_before", "target", "waiting")

    def __init__(self, target: TopicPartition) -> None:
        self.target = target
        self.in_flight: Batch | None = None
        self.waiting = False
        self.not_before = 0
        # In the order of the calls: the full batches, the open one, and what is not encoded yet.
        self._full: deque[Batch] = deque()
        self._filling: Batch | None = None
        self._loose: OrderedDict[Call, None] = OrderedDict()

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits to be sent."""
        return self._filling is None and not self._full and not self._loose

    def add(self, records: Sequence[NewRecord], timestamp: int, done: Done) -> None:
        """Put records behind those that wait already; `done` is told once about all of them."""
        if self._loose:
            self.add_loose(Call(records, timestamp, done))
        else:
            self._encode(records, timestamp, done)

    def add_loose(self, call: Call) -> None:
        """Put records behind those that wait already, so that they can be taken back until the batch before them is answered."""
        self._loose[call] = None

    def withdraw(self, call: Call) -> bool:
        """Take records back; False when they are on their way already. Nobody is told."""
        if call not in self._loose:
            return False
        del self._loose[call]
        return True

    def take(self) -> Batch:
        """The next batch to send; there must be something."""
        if not self._full:
            self._encode_loose()
        if self._full:
            return self._full.popleft()
        batch, self._filling = self._filling, None
        assert batch is not None
        return batch

    def take_all(self) -> list[Batch | Call]:
        """All that waits, in order."""
        taken: list[Batch | Call] = [*self._full]
        if self._filling is not None:
            taken.append(self._filling)
        taken.extend(self._loose)
        self._full.clear()
        self._filling = None
        self._loose.clear()
        return taken

    def _encode_loose(self) -> None:
        """Fills the open batch. What does not fit stays as it is, and can still be taken back."""
        while self._loose and not self._full:
            call = next(iter(self._loose))
            try:
                if len(call.records) > 1:
                    self._encode(call.records, call.timestamp, call.done)
                elif not self._fits(call):
                    return
            except Exception as error:  # what is no record must not keep others from being written
                call.fail(AppendFailed(BrokerError(f"The record cannot be encoded: {error!r}."), may_land=False))
            del self._loose[call]

    def _fits(self, call: Call) -> bool:
        """Encodes a single record into the open batch; False when that is full."""
        batch = self._filling or self._open()
        number = batch.builder.record_count()
        if not batch.builder.fill(call.records, call.timestamp):
            self._full.append(batch)
            self._filling = None
            return False
        batch.add_call(number, call.timestamp, call.done)
        return True

    def _encode(self, records: Sequence[NewRecord], timestamp: int, done: Done) -> None:
        batch = self._filling or self._open()
        first = batch.builder.record_count()
        taken = batch.builder.fill(records, timestamp)
        split = _SplitCall(done) if taken < len(records) else None
        while split is not None and taken < len(records):
            if batch.builder.record_count() > first:
                split.add_part()
                batch.add_call(first, timestamp, split)
            self._full.append(batch)
            batch = self._open()
            first = 0
            taken += batch.builder.fill(records[taken:], timestamp)
        if split is not None:
            split.add_part()
        batch.add_call(first, timestamp, split or done)

    def _open(self) -> Batch:
        self._filling = Batch()
        return self._filling


class _SplitCall:
    """The records of one call that went into several batches: its caller hears once, after the last, of the first."""

    __slots__ = ("_done", "_first", "_landed", "_pending")

    def __init__(self, done: Done) -> None:
        self._done = done
        self._pending = 0
        self._first: Outcome | None = None
        self._landed = False

    def add_part(self) -> None:
        self._pending += 1

    def __call__(self, outcome: Outcome) -> None:
        self._pending -= 1
        self._landed = self._landed or isinstance(outcome, Acknowledged) or outcome.may_land
        if self._first is None or (isinstance(outcome, AppendFailed) and not isinstance(self._first, AppendFailed)):
            self._first = outcome
        if self._pending == 0:
            # Where one part has landed, the call as a whole is in the log in part, whatever was refused.
            if isinstance(self._first, AppendFailed) and self._landed:
                self._first = AppendFailed(self._first.reason)
            self._done(self._first)


def _tell(done: Done, outcome: Outcome) -> None:
    try:
        done(outcome)
    except Exception as error:
        # The other callers of the batch must hear all the same.
        context = {"message": "a callback of an acknowledged write failed", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)
