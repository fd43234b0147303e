"""Writing: records that wait for each partition, of which one batch is under way at a time, as the writer for Kafka has it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from headrace.errors import AppendTimeout, BrokerError, HeadraceError
from headrace.ports import Acknowledged, AppendFailed, NewRecord, Outcome, TopicPartition
from headrace.testing.cluster import InMemoryCluster
from headrace.testing.delivery import Delivery
from headrace.testing.faults import Faults
from headrace.testing.link import Link

Done = Callable[[Outcome], None]

_BATCH_BYTES = 512 * 1024
_RECORD_OVERHEAD_BYTES = 20


class _Call:
    """The records of one call, which hears once of all of them: when the fate of the last is known."""

    def __init__(self, records: Sequence[NewRecord], timestamp: int, done: Done) -> None:
        self.unsent = deque(records)
        self.timestamp = timestamp
        self.begun = False
        self._done = done
        self._under_way = 0
        self._outcome: Outcome | None = None
        self._landed = False

    def part_sent(self) -> None:
        self.begun = True
        self._under_way += 1

    def part_ended(self, outcome: Outcome) -> None:
        self._under_way -= 1
        self._note(outcome)

    def fail_unsent(self, reason: HeadraceError) -> None:
        self.unsent.clear()
        self._note(AppendFailed(reason, may_land=self.begun))

    def _note(self, outcome: Outcome) -> None:
        # The first part has the offset of all; a failure of any part is the failure of all, of which another may have landed.
        self._landed = self._landed or isinstance(outcome, Acknowledged) or outcome.may_land
        if self._outcome is None or (isinstance(outcome, AppendFailed) and isinstance(self._outcome, Acknowledged)):
            self._outcome = outcome
        if self._under_way or self.unsent:
            return
        if isinstance(self._outcome, AppendFailed) and self._landed:
            self._outcome = AppendFailed(self._outcome.reason)
        try:
            self._done(self._outcome)
        except Exception as error:
            # The other callers of the batch must hear all the same.
            context = {"message": "a callback of an acknowledged write failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)


class _Batch:
    """Records of one partition that are written together, or not at all."""

    def __init__(self) -> None:
        self.records: list[NewRecord] = []
        self.timestamps: list[int] = []
        self.size = 0
        self._parts: list[tuple[int, _Call]] = []

    def fill(self, call: _Call) -> bool:
        """Takes what fits of a call; tells whether that was all of it. The first record is taken whatever its size."""
        first = len(self.records)
        while call.unsent:
            size = _size_of(call.unsent[0])
            if self.records and self.size + size > _BATCH_BYTES:
                break
            self.records.append(call.unsent.popleft())
            self.timestamps.append(call.timestamp)
            self.size += size
        if len(self.records) > first:
            self._parts.append((first, call))
            call.part_sent()
        return not call.unsent

    def settle(self, outcome: Outcome) -> None:
        """Tells every caller. A timestamp below 0 says that the records keep that of their call."""
        for first, call in self._parts:
            if isinstance(outcome, Acknowledged):
                timestamp = outcome.timestamp if outcome.timestamp >= 0 else call.timestamp
                call.part_ended(Acknowledged(outcome.offset + first, timestamp))
            else:
                call.part_ended(outcome)


class _Lane:
    """One partition: the calls that wait for it, and the batch that is under way."""

    def __init__(self, target: TopicPartition) -> None:
        self.target = target
        self.waiting: deque[_Call] = deque()
        self.in_flight: _Batch | None = None
        self.scheduled = False

    def take(self) -> _Batch:
        batch = _Batch()
        while self.waiting and batch.fill(self.waiting[0]):
            self.waiting.popleft()
        return batch

    def fail_waiting(self, reason: HeadraceError) -> None:
        failed, self.waiting = self.waiting, deque()
        for call in failed:
            call.fail_unsent(reason)


class InMemoryWriter:
    """The `LogWriter` of a cluster in memory."""

    def __init__(self, cluster: InMemoryCluster, link: Link, faults: Faults) -> None:
        self._cluster = cluster
        self._link = link
        self._faults = (faults, cluster)
        self._lanes: dict[TopicPartition, _Lane] = {}
        self._running = False
        self._quiet = asyncio.Event()
        self._failure: HeadraceError | None = None

    @property
    def failure(self) -> HeadraceError | None:
        """Why this writer writes nothing any more; see `LogWriter.failure`."""
        return self._failure

    def break_down(self, reason: HeadraceError) -> None:
        """Ends this writer as an error would that nobody expected: all that waits fails, and all that comes."""
        self._failure = reason
        self._give_up(reason, reason)

    async def start(self) -> None:
        """Raises: BrokerError."""
        await self._link.request(lambda: None)
        self._running = True

    async def stop(self, *, timeout: float) -> None:
        """Waits at most `timeout` seconds for what is under way; see `LogWriter.stop`."""
        if not self._running:
            return
        self._running = False
        self._note_quiet()
        try:
            async with asyncio.timeout(timeout):
                await self._quiet.wait()
        except TimeoutError:
            self._give_up(
                BrokerError("The writer was stopped before the brokers acknowledged the record; it may still land."),
                BrokerError("The writer was stopped before it could send the record."),
            )

    async def append(self, target: TopicPartition, record: NewRecord, *, timeout: float) -> Acknowledged:
        """Writes one record and waits for its acknowledgement.

        Raises: AppendTimeout, BrokerError, TopicMissing, as `LogWriter.append` does.
        """
        [outcome] = await self.append_all([(target, record)], timeout=timeout)
        if isinstance(outcome, AppendFailed):
            raise outcome.reason
        return outcome

    async def append_all(self, records: Sequence[tuple[TopicPartition, NewRecord]], *, timeout: float) -> list[Outcome]:
        """Writes records, each for itself, and waits for their acknowledgements; see `LogWriter.append_all`."""
        outcomes: dict[int, Outcome] = {}
        settled = asyncio.Event()

        def settle(number: int, outcome: Outcome) -> None:
            outcomes.setdefault(number, outcome)
            if len(outcomes) == len(records):
                settled.set()

        calls = [self._add(target, [record], partial(settle, number)) for number, (target, record) in enumerate(records)]
        try:
            if records and timeout > 0:
                async with asyncio.timeout(timeout):
                    await settled.wait()
        except TimeoutError:
            pass
        finally:
            for (target, _), call in zip(records, calls, strict=True):
                if call is not None and not call.begun:
                    self._withdraw(target, call, timeout)
        unanswered = AppendFailed(AppendTimeout(may_land=True, seconds=timeout))
        return [outcomes.get(number, unanswered) for number in range(len(records))]

    def submit(self, target: TopicPartition, records: Sequence[NewRecord], done: Done) -> None:
        """Hands over records without waiting; see `LogWriter.submit`."""
        if not records:
            raise ValueError("there is nothing to write")
        self._add(target, records, done)

    def _add(self, target: TopicPartition, records: Sequence[NewRecord], done: Done) -> _Call | None:
        if self._failure is not None or not self._running:
            reason = self._failure or BrokerError("The writer is not running; nothing was written.")
            asyncio.get_running_loop().call_soon(done, AppendFailed(reason, may_land=False))
            return None
        lane = self._lanes.get(target)
        if lane is None:
            lane = self._lanes[target] = _Lane(target)
        call = _Call(records, self._cluster.now(), done)
        lane.waiting.append(call)
        self._send_soon(lane)
        return call

    def _withdraw(self, target: TopicPartition, call: _Call, seconds: float) -> None:
        waiting = self._lanes[target].waiting
        if call in waiting:
            waiting.remove(call)
            call.fail_unsent(AppendTimeout(may_land=False, seconds=seconds))
            self._note_quiet()

    def _send_soon(self, lane: _Lane) -> None:
        if lane.in_flight is None and not lane.scheduled:
            lane.scheduled = True
            # Two turns of the loop: what is submitted meanwhile shares the batch, or is taken back.
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._send, lane)

    def _send(self, lane: _Lane) -> None:
        lane.scheduled = False
        if not lane.waiting or lane.in_flight is not None:
            return
        batch = lane.in_flight = lane.take()
        delivery = Delivery(self._cluster, self._link, self._faults, lane.target, batch, partial(self._answered, lane, batch))
        delivery.send()

    def _answered(self, lane: _Lane, batch: _Batch, outcome: Outcome) -> None:
        if lane.in_flight is not batch:
            return  # given up already
        lane.in_flight = None
        batch.settle(outcome)
        if isinstance(outcome, AppendFailed):
            lane.fail_waiting(outcome.reason)
        if lane.waiting:
            self._send_soon(lane)
        self._note_quiet()

    def _give_up(self, under_way: HeadraceError, unsent: HeadraceError) -> None:
        for lane in self._lanes.values():
            batch, lane.in_flight = lane.in_flight, None
            if batch is not None:
                batch.settle(AppendFailed(under_way))
            lane.fail_waiting(unsent)
        self._note_quiet()

    def _note_quiet(self) -> None:
        if not self._running and all(lane.in_flight is None and not lane.waiting for lane in self._lanes.values()):
            self._quiet.set()


def _size_of(record: NewRecord) -> int:
    headers = sum(len(name) + len(value or b"") for name, value in record.headers)
    return len(record.key) + len(record.value or b"") + headers + _RECORD_OVERHEAD_BYTES
