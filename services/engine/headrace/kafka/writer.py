"""Writing records to given partitions, many at a time and in order."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)

from headrace.errors import BrokerError, HeadraceError
from headrace.kafka.administration import Administration
from headrace.kafka.appending import Appending
from headrace.kafka.closing import close_client
from headrace.kafka.connection import Cluster
from headrace.kafka.lane import BATCH_BYTES, Batch, Call, Lane
from headrace.kafka.room import Room
from headrace.ports import Acknowledged, AppendFailed, NewRecord, Outcome, TopicPartition

logger = logging.getLogger(__name__)

_CERTAIN_REFUSALS = (
    InvalidTopicError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)

APPENDED_BYTES = 64 * 1024 * 1024
"""The most that a writer holds of appended records whose fate is not known; what comes then waits for room."""

_REQUEST_TIMEOUT_SECONDS = 30.0
_RETIREMENT_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 5.0


class _Channel:
    """A producer, and the lanes that have a batch under way through it.

    Attributes:
        number: counts the producers of a writer; each has sequence numbers of its own.
    """

    def __init__(self, producer: Any, number: int) -> None:
        self.producer = producer
        self.number = number
        self.busy: dict[Lane, Batch] = {}
        self.idle = asyncio.Event()
        self.idle.set()

    def knows(self, topic: str) -> bool:
        return self.producer.client.cluster.partitions_for_topic(topic) is not None

    def has_partition(self, target: TopicPartition) -> bool:
        return target.partition in (self.producer.client.cluster.partitions_for_topic(target.topic) or ())


class KafkaWriter:
    """The `LogWriter` of a cluster: acknowledged by all in-sync replicas, and written once also when requests are repeated.

    A lone record leaves at once. While a partition's batch is under way, what comes for it is gathered into the next one, so
    that batches grow with the load. A batch that is refused for good leaves a gap in the producer's sequence numbers, after
    which the broker refuses all that follows: what waits behind it fails too, and a new producer takes over.
    """

    def __init__(self, cluster: Cluster, administration: Administration, *, appended_bytes: int = APPENDED_BYTES) -> None:
        self._cluster = cluster
        self._administration = administration
        self._channel: _Channel | None = None
        self._lanes: dict[TopicPartition, Lane] = {}
        self._ready: list[Lane] = []
        self._wake = asyncio.Event()
        self._quiet = asyncio.Event()
        self._room = Room(appended_bytes)
        self._failure: HeadraceError | None = None
        self._stopping = False
        self._opening: set[str] = set()
        self._remaking = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Raises: BrokerUnreachable, BrokerAuthenticationFailed, BrokerCertificateUntrusted."""
        self._channel = _Channel(await self._make_producer(), 1)
        self._run(self._pump())

    async def stop(self, *, timeout: float) -> None:
        """Waits at most `timeout` seconds for what is under way; what is left fails. Returns at most two seconds later."""
        self._stopping = True
        self._room.close()
        if self._channel is None:
            return
        deadline = asyncio.get_running_loop().time() + timeout
        self._note_quiet()
        if timeout > 0 and not self._quiet.is_set():
            quiet = asyncio.ensure_future(self._quiet.wait())
            await asyncio.wait({quiet}, timeout=timeout)
            quiet.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        left = deadline - asyncio.get_running_loop().time()
        channel, self._channel = self._channel, None
        await close_client(channel.producer, timeout=max(left, 0.2) if self._quiet.is_set() else 0)
        failure = AppendFailed(
            BrokerError("The writer was stopped before the brokers acknowledged the record; it may still land.")
        )
        never_sent = AppendFailed(BrokerError("The writer was stopped before it could send the record."), may_land=False)
        channel.busy.clear()
        for lane in self._lanes.values():
            in_flight, lane.in_flight = lane.in_flight, None
            if in_flight is not None:
                in_flight.fail(failure)
            for waiting in lane.take_all():
                waiting.fail(never_sent)

    @property
    def failure(self) -> HeadraceError | None:
        """Why this writer writes nothing any more; see `LogWriter.failure`."""
        return self._failure

    async def append(self, target: TopicPartition, record: NewRecord, *, timeout: float) -> Acknowledged:
        """Writes one record and waits for its acknowledgement.

        Raises:
            AppendTimeout: none came within `timeout` seconds; `may_land` says whether the record may land all the same.
            BrokerError: the brokers refused it.
            TopicMissing: there is no such topic.
        """
        [outcome] = await self.append_all([(target, record)], timeout=timeout)
        if isinstance(outcome, AppendFailed):
            raise outcome.reason
        return outcome

    async def append_all(self, records: Sequence[tuple[TopicPartition, NewRecord]], *, timeout: float) -> list[Outcome]:
        """Writes records, each for itself, and waits for their acknowledgements; see `LogWriter.append_all`."""
        appending = Appending(len(records), self._room, timeout)
        try:
            for target, record in records:
                self._append(target, await appending.enter(record), appending)
            await appending.settled()
        except TimeoutError:
            pass
        finally:
            # Nobody waits for them any more, be it for the time or because the caller was cancelled.
            appending.withdraw()
            self._note_quiet()
        return appending.outcomes()

    def _append(self, target: TopicPartition, call: Call, appending: Appending) -> None:
        if (refusal := self._refusal()) is not None:
            call.done(refusal)
            return
        lane = self._lane(target)
        lane.add_loose(call)
        appending.placed(lane, call)
        self._send_soon(lane)

    def submit(self, target: TopicPartition, records: Sequence[NewRecord], done: Callable[[Outcome], None]) -> None:
        """Hands over records without waiting; see `LogWriter.submit`.

        Records that do not fit in a batch of 512 KiB are spread over several: then others' records may stand between them.
        """
        if not records:
            raise ValueError("there is nothing to write")
        if (refusal := self._refusal()) is not None:
            asyncio.get_running_loop().call_soon(done, refusal)
            return
        lane = self._lane(target)
        lane.add(records, int(time.time() * 1000), done)
        self._send_soon(lane)

    def _refusal(self) -> AppendFailed | None:
        if self._failure is not None:
            return AppendFailed(self._failure, may_land=False)
        if self._stopping or self._channel is None:
            return AppendFailed(BrokerError("The writer is not running; nothing was written."), may_land=False)
        return None

    def _lane(self, target: TopicPartition) -> Lane:
        lane = self._lanes.get(target)
        if lane is None:
            lane = self._lanes[target] = Lane(target)
        return lane

    def _send_soon(self, lane: Lane) -> None:
        if not lane.waiting and lane.in_flight is None:
            lane.waiting = True
            self._ready.append(lane)
            self._wake.set()

    async def _pump(self) -> None:
        """Hands over, once in a turn of the loop, one batch of every partition that has something: they share a request."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            ready, self._ready = self._ready, []
            for lane in ready:
                lane.waiting = False
                if lane.in_flight is None and not lane.is_empty:
                    await self._hand_over(lane)

    async def _hand_over(self, lane: Lane) -> None:
        channel = self._channel
        assert channel is not None
        if channel.number < lane.not_before:
            return  # taken up again when the new producer is there
        if not channel.knows(lane.target.topic):
            if lane.target.topic not in self._opening:
                self._opening.add(lane.target.topic)
                self._run(self._open_topic(channel, lane.target.topic))
            return
        if not channel.has_partition(lane.target):
            self._fail(
                lane, lane.take_all(), BrokerError(f"The topic {lane.target.topic} has no partition {lane.target.partition}.")
            )
            return
        batch = lane.take()
        if not batch.builder.record_count():
            return  # nothing that waited could be encoded, and its callers know
        batch.builder.close()
        # Its topic is known and nothing of the partition is queued: this does not wait, and so holds up no other partition.
        try:
            answer = await channel.producer.send_batch(batch.builder, lane.target.topic, partition=lane.target.partition)
        except Exception as error:
            self._refused(lane, batch, channel, error)
            return
        lane.in_flight = channel.busy[lane] = batch
        channel.idle.clear()
        answer.add_done_callback(partial(self._answered, lane, batch, channel))

    def _answered(self, lane: Lane, batch: Batch, channel: _Channel, answer: asyncio.Future[Any]) -> None:
        if channel.busy.pop(lane, None) is None:
            return  # given up already
        if not channel.busy:
            channel.idle.set()
        lane.in_flight = None
        error = None if answer.cancelled() else answer.exception()
        if answer.cancelled() or error is not None or answer.result().offset < 0:
            self._refused(lane, batch, channel, error)
        else:
            if not lane.is_empty:
                self._send_soon(lane)
            written = answer.result()
            batch.acknowledge(written.offset, written.timestamp)
        self._note_quiet()

    def _refused(self, lane: Lane, batch: Batch, channel: _Channel, error: BaseException | None) -> None:
        lane.not_before = channel.number + 1
        if self._channel is channel and not self._remaking and not self._stopping:
            self._remaking = True
            self._run(self._remake(channel))
        why = "repeated too late for its offset to be known" if error is None else str(error) or repr(error)
        if isinstance(error, Exception) and not isinstance(error, KafkaError):
            logger.error("an unexpected error kept a batch for %s from being written", lane.target.topic, exc_info=error)
        reason = BrokerError(f"{lane.target.topic}, partition {lane.target.partition}: the brokers did not take a batch: {why}")
        reason.__cause__ = error
        self._fail(lane, [batch, *lane.take_all()], reason, sent=batch if _may_land(batch, error) else None)

    def _fail(self, lane: Lane, waiting: Sequence[Batch | Call], reason: HeadraceError, *, sent: Batch | None = None) -> None:
        """Tells whose records were not written. Only those of `sent` may land all the same."""
        logger.warning("%d batches for %s were not written: %s", len(waiting), lane.target.topic, reason)
        for each in waiting:
            each.fail(AppendFailed(reason, may_land=each is sent))
        self._note_quiet()

    def _note_quiet(self) -> None:
        if self._stopping and all(lane.in_flight is None and lane.is_empty for lane in self._lanes.values()):
            self._quiet.set()

    async def _open_topic(self, channel: _Channel, topic: str) -> None:
        """Learns the leaders of a topic that this producer has not written to yet; it must exist before it is named."""
        failure: HeadraceError | None = None
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT_SECONDS):
                await self._administration.partition_count(topic)
                await channel.producer.partitions_for(topic)
        except HeadraceError as error:
            failure = error
        except Exception as error:
            failure = BrokerError(f"The partitions of {topic} cannot be learned: {error}")
        if channel is not self._channel:
            return  # the new producer has begun to learn for itself
        self._opening.discard(topic)
        lanes = [lane for target, lane in self._lanes.items() if target.topic == topic]
        for lane in lanes:
            if failure is not None and lane.in_flight is None:
                self._fail(lane, lane.take_all(), failure)
            elif not lane.is_empty:
                self._send_soon(lane)

    async def _remake(self, broken: _Channel) -> None:
        """Puts a new producer in the place of one that has lost count; partitions that it still serves go on meanwhile."""
        pause = 0.1
        while True:
            try:
                producer = await self._make_producer()
            except BrokerError as error:
                logger.warning("a new producer cannot be made yet: %s", error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                break
        self._channel = _Channel(producer, broken.number + 1)
        self._remaking = False
        self._opening.clear()  # what the old producer was about to learn, it will never answer
        for lane in self._lanes.values():
            if not lane.is_empty:
                self._send_soon(lane)
        await self._retire(broken)

    async def _retire(self, channel: _Channel) -> None:
        idle = asyncio.ensure_future(channel.idle.wait())
        try:
            await asyncio.wait({idle}, timeout=_RETIREMENT_SECONDS)
        finally:
            idle.cancel()
            # Answers that come from now on are of no use: the callers are told below, or by `stop`.
            given_up, channel.busy = channel.busy, {}
            await close_client(channel.producer, timeout=1.0 if channel.idle.is_set() else 0)
        for lane, batch in given_up.items():
            lane.in_flight = None
            self._fail(
                lane, [batch], BrokerError(f"No answer for a batch of {lane.target.topic}; it may still land."), sent=batch
            )
            if not lane.is_empty:
                self._send_soon(lane)

    async def _make_producer(self) -> Any:
        return await self._cluster.connect(
            lambda options: AIOKafkaProducer(
                **options,
                acks="all",
                enable_idempotence=True,
                linger_ms=0,
                max_batch_size=BATCH_BYTES,
                request_timeout_ms=int(_REQUEST_TIMEOUT_SECONDS * 1000),
            )
        )

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None or self._failure is not None:
            return
        # Without this task something would wait for ever: everything fails instead, also what comes later.
        logger.error("the writer has failed by an error that nobody expected", exc_info=error)
        self._failure = BrokerError(f"The writer has failed and must be made anew: {error!r}.")
        self._failure.__cause__ = error
        for lane in self._lanes.values():
            in_flight, lane.in_flight = lane.in_flight, None
            if self._channel is not None:
                self._channel.busy.pop(lane, None)
            waiting = lane.take_all() if in_flight is None else [in_flight, *lane.take_all()]
            if waiting:
                self._fail(lane, waiting, self._failure, sent=in_flight)
        self._room.close()


def _may_land(batch: Batch, error: BaseException | None) -> bool:
    """Whether a batch that the producer gave up may be in the log all the same.

    Some refusals say that the brokers did not even try, but of the last request alone: aiokafka repeats a batch of which an
    earlier request was not answered, and what that one did is not known then.
    """
    if batch.requests == 0:
        return False
    return batch.requests > 1 or not isinstance(error, _CERTAIN_REFUSALS)
