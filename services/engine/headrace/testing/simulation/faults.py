"""What goes wrong in a run: one fault after another, drawn by the seed from those that its scenario has."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from random import Random
from typing import Protocol

from headrace.core.topics import Topics
from headrace.errors import BrokerError
from headrace.ports import TopicPartition
from headrace.testing.cluster import InMemoryCluster
from headrace.testing.faults import Hold
from headrace.testing.simulation.kinds import WEIGHTS, FaultKind
from headrace.testing.simulation.matching import is_claim, is_end, is_repeat, is_snapshot, is_start
from headrace.testing.simulation.process import SimulatedProcess
from headrace.testing.simulation.scenario import Scenario
from headrace.testing.simulation.workload import WORKER

# Brokers' clocks may differ by ten seconds, where leases are judged by them.
_BROKERS_APART = 5.0


class Fleet(Protocol):
    """The engines of a run, as faults meet them."""

    @property
    def processes(self) -> Sequence[SimulatedProcess]:
        """Those that live, the client's last."""

    def start_one(self) -> None: ...
    def stop_one(self, process: SimulatedProcess, grace_seconds: float) -> None: ...
    def compact(self) -> None: ...


class Nemesis:
    """Makes things go wrong.

    Attributes:
        counts: how often each fault was.
        broker_offset: how far the brokers' clock is ahead, in seconds.
    """

    def __init__(self, scenario: Scenario, cluster: InMemoryCluster, topics: Topics, fleet: Fleet) -> None:
        self.counts: Counter[FaultKind] = Counter()
        self.broker_offset = 0.0
        self._scenario = scenario
        self._pace = scenario.pace
        self._random = Random(f"faults {scenario.seed}")
        self._cluster = cluster
        self._topics = topics
        self._fleet = fleet
        self._under_way: set[asyncio.Task[None]] = set()
        self._holds: list[Hold] = []
        self._untold: set[SimulatedProcess] = set()
        self._faults: dict[FaultKind, Callable[[], Awaitable[None]]] = {
            FaultKind.ACKNOWLEDGEMENT_LOST: self._lose_acknowledgement,
            FaultKind.ACKNOWLEDGEMENT_LATE: self._hold_acknowledgements,
            FaultKind.APPEND_REFUSED: self._refuse_append,
            FaultKind.APPEND_DELAYED: self._hold_appends,
            FaultKind.LANDS_LATE: self._land_late,
            FaultKind.CUT_OFF: self._cut_off,
            FaultKind.GROUP_AWAY: self._cut_off_from_groups,
            FaultKind.EVICTED: self._evict,
            FaultKind.NEVER_TOLD: self._evict_for_good,
            FaultKind.CLAIM_DISPUTED: self._dispute_claim,
            FaultKind.REQUESTS_REFUSED: self._refuse_requests,
            FaultKind.READS_STALL: self._withhold,
            FaultKind.READS_LATE: self._read_late,
            FaultKind.CRASH: self._kill,
            FaultKind.CRASH_AFTER_WRITES: self._kill_after_writes,
            FaultKind.REPEAT_LATE: self._repeat_late,
            FaultKind.FREEZE_SHORT: lambda: self._freeze(0.05, 0.95),
            FaultKind.FREEZE_LONG: lambda: self._freeze(1.0, 3.0),
            FaultKind.FROZEN_SENDING: self._freeze_sending,
            FaultKind.FROZEN_UNHEARD: self._freeze_unheard,
            FaultKind.LATE_THEN_CUT: self._acknowledge_late_and_cut,
            FaultKind.SUSPENDED: lambda: self._freeze(0.3, 3.0, slept=True),
            FaultKind.CLOCK_AHEAD: lambda: self._set_clock(1),
            FaultKind.CLOCK_BACK: lambda: self._set_clock(-1),
            FaultKind.BROKER_CLOCK: self._set_broker_clock,
            FaultKind.COMPACTION: self._compact,
            FaultKind.JOIN: self._join,
            FaultKind.LEAVE: self._leave,
            FaultKind.STARTS_UNHEARD: self._hand_over_unheard,
            FaultKind.ALL_STOP: self._stop_all,
        }

    async def run(self) -> None:
        """One fault after another, often several at a time, until it is cancelled; see `end`."""
        kinds = sorted(self._scenario.faults)
        weights = [WEIGHTS.get(kind, 1.0) for kind in kinds]
        while True:
            await asyncio.sleep(self._random.expovariate(1 / self._scenario.fault_interval))
            [kind] = self._random.choices(kinds, weights)
            task = asyncio.create_task(self._do(kind))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def end(self) -> None:
        """Nothing goes wrong any more, and everything that was held back comes now."""
        for task in list(self._under_way):
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        for hold in self._holds:
            hold.release()
        self._cluster.end_faults()
        self._cluster.give_out()
        for process in self._fleet.processes:
            process.log.reconnect()
            process.log.accept_requests()
            if process not in self._untold:
                process.log.tell_evicted(self._topics.group(WORKER))
            if process.runs:
                process.log.read_on()
            else:
                process.asleep = False
                await process.thaw("as-it-came", slept=False, excused_seconds=0.0)

    async def _do(self, kind: FaultKind) -> None:
        self.counts[kind] += 1
        await self._faults[kind]()

    # --- writes -------------------------------------------------------------------------------------------------------

    def _target(self) -> tuple[str, int | None]:
        """A topic and a partition of it: most often where the state of jobs is written."""
        drawn = self._random.random()
        if drawn < 0.85:
            ends = [
                state for state, end in sorted(self._cluster.ends().items()) if state.topic == self._topics.job_state.name and end
            ]
            return self._topics.job_state.name, self._random.choice(ends).partition if ends else None
        if drawn < 0.9:
            return self._topics.ended_keys(1).name, None
        return (self._topics.jobs_name(WORKER) if drawn < 0.95 else self._topics.dead_letters.name), None

    async def _lose_acknowledgement(self) -> None:
        topic, partition = self._target()
        self._cluster.lose_acknowledgements(topic, partition=partition, times=self._random.randint(1, 2))

    async def _refuse_append(self) -> None:
        topic, partition = self._target()
        self._cluster.refuse_appends(topic, partition=partition, times=self._random.randint(1, 2))

    async def _hold_acknowledgements(self) -> None:
        topic, partition = self._target()
        await self._release(
            self._cluster.hold_acknowledgements(topic, partition=partition), self._random.uniform(0.2, 45) * self._pace
        )

    async def _hold_appends(self) -> None:
        topic, partition = self._target()
        await self._release(self._cluster.hold_appends(topic, partition=partition), self._random.uniform(0.2, 45) * self._pace)

    async def _land_late(self) -> None:
        topic, partition = self._target()
        hold = self._cluster.land_late(topic, partition=partition, times=self._random.randint(1, 3))
        await self._release(hold, self._random.choice((1, 10, 100)) * self._random.random() * self._pace)

    async def _release(self, hold: Hold, seconds: float) -> None:
        self._holds.append(hold)
        await asyncio.sleep(seconds)
        hold.release()

    # --- processes ----------------------------------------------------------------------------------------------------

    def _victim(self) -> SimulatedProcess | None:
        free = [process for process in self._fleet.processes if process.is_free]
        return self._random.choice(free) if free else None

    def _engine(self) -> SimulatedProcess | None:
        free = [process for process in self._fleet.processes[:-1] if process.is_free]
        return self._random.choice(free) if free else None

    async def _cut_off(self) -> None:
        if process := self._victim():
            process.log.cut_off()
            await asyncio.sleep(self._random.choice((1, 20, 90)) * self._random.random() * self._pace)
            process.log.reconnect()

    async def _cut_off_from_groups(self) -> None:
        """Others get its partitions, and it reads and writes on."""
        if process := self._engine():
            process.log.cut_off_from_groups()
            process.spared = self._random.random() < 0.5
            seconds = self._random.uniform(4.0, 6.0) if process.spared else 3.0 * self._random.random()
            await asyncio.sleep(seconds * self._scenario.lease)
            process.spared = False
            process.log.reconnect()

    async def _evict(self) -> None:
        if process := self._engine():
            group = self._topics.group(WORKER)
            process.log.evict(group)
            await asyncio.sleep(self._random.uniform(5, 120) * self._pace)
            process.log.tell_evicted(group)

    async def _evict_for_good(self) -> None:
        """Only its own commits tell the engine of it: it has to ask."""
        if process := self._engine():
            process.log.evict(self._topics.group(WORKER))
            self._untold.add(process)

    async def _dispute_claim(self) -> None:
        """The next claim of an engine is on its way for long. Its group gives it up meanwhile, so that others claim, too."""
        if process := self._engine():
            group, lease = self._topics.group(WORKER), self._scenario.lease
            hold = process.log.hold_appends(self._topics.job_state.name, matching=is_claim)
            self._holds.append(hold)
            await _caught(hold, 60 * self._pace)
            process.log.evict(group)
            await asyncio.sleep(self._random.choice((0.05, 0.3, 1.1)) * lease * self._random.random())
            hold.release()
            await asyncio.sleep(self._random.uniform(0.1, 2.0) * lease)
            process.log.tell_evicted(group)

    async def _refuse_requests(self) -> None:
        if process := self._victim():
            process.log.refuse_requests(BrokerError("The brokers are busy."))
            await asyncio.sleep(self._random.uniform(0.1, 20) * self._pace)
            process.log.accept_requests()

    async def _withhold(self) -> None:
        topic, partition = self._target()
        if self._random.random() < 0.5:
            # Whoever takes over from an engine that leaves now has to wait until it knows what was asked.
            topic, partition = self._topics.control.name, 0
            await self._leave()
        if partition is not None:
            self._cluster.withhold(TopicPartition(topic, partition))
            await asyncio.sleep(self._random.uniform(0.1, 30) * self._pace)
            self._cluster.give_out(TopicPartition(topic, partition))

    async def _read_late(self) -> None:
        """What one process reads is old; asked for their ends, the partitions tell these."""
        if process := self._engine():
            process.log.read_late()
            await asyncio.sleep(self._random.uniform(0.1, 1.5) * self._scenario.lease)
            if process.is_free:  # one that is frozen reads on when it thaws
                process.log.read_on()

    async def _kill_after_writes(self) -> None:
        """All that an engine writes is under way for a while, and lands at once. It dies soon after that."""
        if process := self._engine():
            held = process.log.hold_appends(self._topics.job_state.name)
            told = process.log.hold_appends(self._topics.ended_keys(1).name)
            self._holds += held, told
            await asyncio.sleep(self._random.uniform(0.05, 0.5) * self._scenario.lease)
            held.release()
            await asyncio.sleep(self._random.choice((0.05, 0.3)) * self._random.random() * self._scenario.lease)
            if process.is_free:
                process.die()
            else:
                told.release()

    async def _repeat_late(self) -> None:
        """What a janitor repeats lands when more has happened; and then somebody else has to read it."""
        hold = self._cluster.hold_appends(self._topics.job_state.name, matching=is_repeat)
        self._holds.append(hold)
        if await _caught(hold, 4 * self._scenario.lease):
            await asyncio.sleep(self._random.uniform(0.2, 2.0) * self._scenario.lease)
        hold.release()
        await asyncio.sleep(self._random.uniform(0.0, 0.2) * self._scenario.lease)
        await self._kill()

    async def _kill(self) -> None:
        if process := self._engine():
            if self._random.random() < 0.3:
                process.log.cut_off()  # with its machine: what it sent last is lost, too
                process.died_with_machine = True
            process.die()

    async def _freeze(self, least: float, most: float, *, slept: bool = False) -> None:
        if process := self._engine():
            process.freeze()
            process.asleep = slept
            await asyncio.sleep(self._random.uniform(least, most) * self._scenario.lease)
            order = self._random.choice(("as-it-came", "timers-first", "messages-first"))
            # A loop whose clock slept, too, looks at its leases when the time is up that was left then.
            process.asleep = False
            await process.thaw(order, slept=slept, excused_seconds=0.13 * self._scenario.lease if slept else 0.0)

    async def _freeze_sending(self) -> None:
        """What an engine wrote last lands while it is frozen, after its lease; of that it hears first when it goes on."""
        if process := self._engine():
            lease = self._scenario.lease
            ends = self._random.random() < 0.5
            hold = process.log.hold_appends(self._topics.job_state.name, matching=is_end if ends else None)
            self._holds.append(hold)
            if ends:
                await _caught(hold, 2 * lease)
            else:
                await asyncio.sleep(self._random.uniform(0.0, 0.3) * lease)
            if process.is_free:
                process.freeze()
                if self._random.random() < 0.5:
                    process.log.evict(self._topics.group(WORKER))
                await asyncio.sleep(self._random.uniform(1.2, 3.0) * lease)
                hold.release()
                await asyncio.sleep(self._random.uniform(0.01, 1.0))
                await process.thaw("messages-first", slept=False, excused_seconds=0.0)
                process.log.tell_evicted(self._topics.group(WORKER))
            hold.release()

    async def _freeze_unheard(self) -> None:
        """What an engine wrote of a job has landed, and it hears of it when others have the partition."""
        if process := self._engine():
            lease = self._scenario.lease
            hold = process.log.hold_acknowledgements(self._topics.job_state.name, matching=is_snapshot)
            self._holds.append(hold)
            await _caught(hold, 2 * lease)
            if hold.count and process.is_free:
                process.freeze()
                if self._random.random() < 0.5:
                    process.log.evict(self._topics.group(WORKER))
                await asyncio.sleep(self._random.uniform(1.2, 3.0) * lease)
                hold.release()
                await asyncio.sleep(self._random.uniform(0.01, 1.0) * self._pace)
                await process.thaw("messages-first", slept=False, excused_seconds=0.0)
                process.log.tell_evicted(self._topics.group(WORKER))
            hold.release()

    async def _acknowledge_late_and_cut(self) -> None:
        """A renewal is acknowledged when its term is nearly over, and none comes through after it."""
        if process := self._engine():
            lease = self._scenario.lease
            hold = process.log.hold_acknowledgements(self._topics.job_state.name)
            self._holds.append(hold)
            await asyncio.sleep(self._random.uniform(0.4, 0.8) * lease)
            hold.release()
            await asyncio.sleep(self._random.uniform(0.01, 0.3) * self._pace)
            process.log.cut_off()
            await asyncio.sleep(self._random.uniform(0.1, 0.8) * lease)
            # As when its session is over: so others look when the lease would be over but for its acknowledgement.
            process.log.evict(self._topics.group(WORKER))
            await asyncio.sleep(self._random.uniform(0.5, 1.5) * lease)
            process.log.tell_evicted(self._topics.group(WORKER))
            process.log.reconnect()

    async def _set_clock(self, direction: int) -> None:
        if process := self._engine():
            process.wall_offset += direction * self._random.choice((1, 30, 120)) * self._random.random() * self._pace

    async def _set_broker_clock(self) -> None:
        apart = (_BROKERS_APART if self._scenario.by_log_time else 600.0) * self._pace
        self.broker_offset = self._random.uniform(-apart, apart)

    # --- the whole ----------------------------------------------------------------------------------------------------

    async def _compact(self) -> None:
        self._fleet.compact()

    async def _join(self) -> None:
        if len(self._fleet.processes) <= 2 * self._scenario.engines:
            self._fleet.start_one()

    async def _leave(self) -> None:
        if process := self._engine():
            self._fleet.stop_one(process, self._random.choice((0.0, 2.0, 20.0)) * self._pace)

    async def _hand_over_unheard(self) -> None:
        """An engine has to let go of partitions while it has not heard yet that jobs of them have begun."""
        if process := self._engine():
            group, lease = self._topics.group(WORKER), self._scenario.lease
            hold = process.log.hold_acknowledgements(self._topics.job_state.name, matching=is_start)
            self._holds.append(hold)
            if await _caught(hold, 2 * lease):
                process.log.evict(group)
                process.log.tell_evicted(group)
                await asyncio.sleep(self._random.uniform(0.1, 0.6) * lease)
            hold.release()

    async def _stop_all(self) -> None:
        for process in list(self._fleet.processes[:-1]):
            if process.is_free:
                self._fleet.stop_one(process, self._pace)


async def _caught(hold: Hold, seconds: float) -> bool:
    """Waits until something is held back, but no longer than so many seconds; tells whether something was."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await hold.caught()
            return True
    return False
