"""An engine hears what is asked of it, waits for brokers that are away, and passes over what is no request."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from headrace.codec import encode
from headrace.core.control import Cancellation
from headrace.core.records import cancellation_key, pause_key
from headrace.core.timestamps import from_milliseconds
from headrace.engine.control import EngineControl
from headrace.errors import BrokerError
from headrace.models import CancelRequest, PauseRequest, Source
from headrace.ports import NewRecord
from headrace.testing import InMemoryCluster, InMemoryLog
from headrace.views.workers import WorkerDirectory
from support.log import eventually
from support.memory_engines import TOPICS, passing, wall_clock
from support.requests import CONTROL
from support.virtual_time import in_virtual_time

PAUSE = encode(PauseRequest(worker_name="w", requested_at=from_milliseconds(0)))


def cancel_request(job_id: str, worker: str = "w") -> bytes:
    source = Source(topic="jobs", partition=0, offset=7)
    return encode(CancelRequest(job_id=job_id, worker_name=worker, source=source, requested_at=from_milliseconds(0)))


@dataclass
class Group:
    """What it was told, in order."""

    told: list[Cancellation | bool] = field(default_factory=list)

    def cancel(self, cancellation: Cancellation) -> None:
        self.told.append(cancellation)

    def pause(self, paused: bool) -> None:
        self.told.append(paused)


class Bench:
    """The control of an engine with one worker, over a log in memory."""

    def __init__(self) -> None:
        self.cluster = InMemoryCluster(now=wall_clock)
        self.log = InMemoryLog(self.cluster)
        self.directory = WorkerDirectory(self.log, TOPICS)
        self.control = EngineControl(self.directory, self.log.writer(), CONTROL.topic)
        self.group = Group()

    async def start(self) -> None:
        await self.directory.start()
        await self.directory.wait_ready(10)
        self.control.attach("w", self.group)

    def ask(self, key: bytes, value: bytes | None) -> None:
        self.cluster.append(CONTROL, NewRecord(key, value))


@in_virtual_time
async def test_what_is_asked_is_handed_on_and_what_is_no_request_costs_itself_alone() -> None:
    bench = Bench()
    bench.cluster.create_topics([TOPICS.control])
    bench.ask(pause_key("w"), PAUSE)
    await bench.start()
    for key, value in (
        (b"job/default/a", b"no JSON"),
        (b"job/default/a", b'{"kind":"cancel"}'),
        (cancellation_key("default", "another"), cancel_request("a")),
        (b"moon/full", PAUSE),
        (pause_key("other"), PAUSE),
        (cancellation_key("default", "b"), cancel_request("b", "another-worker")),
        (cancellation_key("default", "a"), cancel_request("a")),
        (pause_key("w"), None),
        (b"job/default/unknown", None),
    ):
        bench.ask(key, value)
    await eventually(lambda: len(bench.group.told) == 3, "what it is told")
    assert bench.group.told == [True, Cancellation("default", "a", "w", 0, 7), False]
    assert bench.directory.undecodable.total == 5
    assert list(bench.control.of("w").cancellations) == [b"job/default/a"]
    await bench.directory.stop()


@in_virtual_time
async def test_whoever_has_to_know_what_was_asked_waits_for_brokers_that_are_away() -> None:
    bench = Bench()
    await bench.start()
    bench.log.refuse_requests(BrokerError("They are away."))
    bench.ask(cancellation_key("default", "a"), cancel_request("a"))
    reading = asyncio.create_task(bench.control.read_up_to_now())
    await passing(60)
    assert not reading.done()
    bench.log.accept_requests()
    async with asyncio.timeout(30):
        await reading
    assert bench.group.told == [False, Cancellation("default", "a", "w", 0, 7)]
    await bench.directory.stop()
