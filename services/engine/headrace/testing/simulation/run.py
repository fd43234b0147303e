"""One run of the simulation, from a scenario to a report."""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from headrace.core.records import instance_of
from headrace.core.topics import Topics
from headrace.engine.engine import WorkerEngine
from headrace.errors import HeadraceError, LeaseLost
from headrace.ports import TopicPartition
from headrace.testing.cluster import InMemoryCluster
from headrace.testing.simulation.checks import Judge, Violation
from headrace.testing.simulation.chronicle import Chronicle, Written
from headrace.testing.simulation.compacted import compact, compare, superseded
from headrace.testing.simulation.faults import Nemesis
from headrace.testing.simulation.loop import SimulationLoop
from headrace.testing.simulation.outcomes import Outcomes
from headrace.testing.simulation.process import WALL_CLOCK_START, SimulatedProcess, Times
from headrace.testing.simulation.scenario import FaultKind, Scenario
from headrace.testing.simulation.starts import Starts
from headrace.testing.simulation.supervision import ChildProcesses, SimulatedSupervisor
from headrace.testing.simulation.surroundings import NAMESPACE, quietly, settings_of
from headrace.testing.simulation.workload import WORKER, SimulatedProcesses, Workload, simulated_worker

# Kafka keeps the last hour; a run does not take one.
_COMPACTION_LAG_SECONDS = 300.0
# After the last job has ended, until janitors have tidied up after it: at least, and so many looks more.
_TIDYING_SECONDS = 80.0
_TIDYING_LOOKS = 12
_LOOK_SECONDS = 5.0
_MOST_PEACES = 6
_LOOKS = 20
# A client repeats what was not acknowledged in its ten seconds, whatever the pace of the engines is.
_ANSWER_SECONDS = 600.0
_CONNECT_SECONDS = 10.0
# So soon an engine hears of what was asked: later than it reads, and than it tries again when it could not.
_PATIENCE_SECONDS = 60.0
# An engine gives back what it holds when its group has not answered for 40 s, and has 10 s for that.
_LET_GO_SECONDS = 70.0
_HOLDER = "who holds a partition is who is given it"


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a run.

    Attributes:
        seconds: of virtual time.
        jobs: records in the queue, some of which are no jobs.
        attempts: how many began.
        after_thaw: steps of superseded attempts that thawed processes did before they could look at their leases.
        void: how many records counted for nothing, by kind.
        faults: how often each was.
        digest: the same for two runs in which the same happened.
        violations: the promises that were broken.
    """

    scenario: Scenario
    seconds: float
    jobs: int
    attempts: int
    after_thaw: int
    void: Counter[str]
    faults: Counter[FaultKind]
    digest: str
    violations: Sequence[Violation] = field(default_factory=list)


def simulate(scenario: Scenario, *, to_the_end: bool = True) -> Report:
    """Runs a scenario. The same scenario does the same each time.

    Args:
        to_the_end: whether it goes on after a promise was broken.
    """
    loop = SimulationLoop(Random(f"order {scenario.seed}"))
    run = _Run(scenario, loop, to_the_end)
    loop.set_exception_handler(run.note_failure)
    with quietly(scenario.pace):
        try:
            loop.run_until_complete(run.main())
            return run.report()
        finally:
            _clear(loop, run.everyone)


class _Run:
    def __init__(self, scenario: Scenario, loop: SimulationLoop, to_the_end: bool) -> None:
        self.scenario = scenario
        self._to_the_end = to_the_end
        self.everyone: list[SimulatedProcess] = []
        self._loop = loop
        self._random = Random(f"run {scenario.seed}")
        self._settings = settings_of(scenario)
        self._topics = Topics(NAMESPACE)
        self._chronicle = Chronicle(lambda: loop.now)
        clocks_agree = scenario.faults.isdisjoint({FaultKind.CLOCK_AHEAD, FaultKind.CLOCK_BACK})
        self._patience = _PATIENCE_SECONDS * scenario.pace
        starts = Starts(scenario.rate_limit if clocks_agree else None, scenario.partitions, self._patience)
        self._judge = Judge(self._topics, WORKER, scenario.concurrency, Outcomes(clocks_agree), starts)
        self._judged = 0
        self._cluster = InMemoryCluster(now=self._broker_time, latency=self._latency)
        self._cluster.written = self._chronicle.written
        self._cluster.committed = self._chronicle.committed
        self._nemesis = Nemesis(scenario, self._cluster, self._topics, self)
        self._engines: list[SimulatedProcess] = []
        self._stops: dict[SimulatedProcess, tuple[asyncio.Event, list[float]]] = {}
        self._client = self._process("client")
        self._failures: list[str] = []
        self._instances: dict[str, SimulatedProcess] = {}
        self._foreign_since: dict[tuple[int, SimulatedProcess], float] = {}
        self._leases: dict[int, int] = {}
        self._looked_at = 0.0
        self._is_over = False
        self._watching: set[asyncio.Task[None]] = set()

    # --- the course of it -------------------------------------------------------------------------------------------------

    async def main(self) -> None:
        for _ in range(self.scenario.engines):
            self.start_one()
        workload = Workload(self.scenario, self._settings, self._client, self._chronicle)
        enqueuing = self._client.begin(workload.run(), "workload")
        pausing = self._client.begin(workload.pause_now_and_then(), "pauses") if self.scenario.pauses else None
        keeping = asyncio.create_task(self._keep_engines())
        trouble = asyncio.create_task(self._nemesis.run())
        for _ in range(_LOOKS):
            if not self._is_decided():
                await asyncio.sleep(self.scenario.seconds / _LOOKS)
        trouble.cancel()
        await self._nemesis.end()
        self._chronicle.calm()
        if self._is_decided():
            keeping.cancel()
            return
        if pausing is not None:
            pausing.cancel()
            seconds = self._patience + 2 * _LOOK_SECONDS * self.scenario.pace
            await asyncio.wait({self._client.begin(workload.pause_once(seconds), "pause")})
        await asyncio.wait({enqueuing}, timeout=_ANSWER_SECONDS)
        if not enqueuing.done():
            self._failures.append("the client was not answered")
        elif not enqueuing.cancelled() and (error := enqueuing.exception()) is not None:
            self._failures.append(f"the client failed: {error!r}")
        await self._until_all_ended()
        # Commits follow, and so does what was still under way.
        await self._until_tidy()
        self._is_over = not self._is_decided()
        keeping.cancel()

    async def _until_tidy(self) -> None:
        pace = self.scenario.pace
        await asyncio.sleep(max(2 * self.scenario.lease, _TIDYING_SECONDS * pace))
        for _ in range(_TIDYING_LOOKS):
            if self._is_decided() or self._is_tidy():
                return
            await asyncio.sleep(4 * _LOOK_SECONDS * pace)

    def _is_tidy(self) -> bool:
        return not any(self._disagreements()) and not any(self._held_by_others())

    def _is_decided(self) -> bool:
        """Whether nothing that is to come could change what the run tells."""
        self._catch_up()
        self._look_at_holders()
        return not self._to_the_end and bool(self._judge.violations)

    async def _until_all_ended(self) -> None:
        quiet_since, before = self._loop.now, (-1, -1)
        # Of a job that takes its process with it for ever there is no end.
        latest = self._loop.now + _MOST_PEACES * self.scenario.peace
        while self._loop.now - quiet_since < self.scenario.peace and self._loop.now < latest:
            decided = self._is_decided()
            unfinished = len(self._judge.unfinished())
            if decided or not unfinished:
                return
            if (unfinished, self._judge.attempts) != before:
                quiet_since, before = self._loop.now, (unfinished, self._judge.attempts)
            await asyncio.sleep(_LOOK_SECONDS * self.scenario.pace)

    def report(self) -> Report:
        now = self._loop.now
        self._catch_up()
        judge = self._judge
        judge.conclude(now)
        violations = [
            *judge.violations,
            *(Violation(now, _HOLDER, what) for _, (_, what) in (self._held_by_others() if self._is_over else ())),
            *(Violation(now, "nothing fails by itself", failure) for failure in self._failures),
            *(Violation(now, "readers of the compacted log agree", each) for each in self._disagreements()),
        ]
        return Report(
            scenario=self.scenario,
            seconds=now - 1_000.0,
            jobs=judge.jobs,
            attempts=judge.attempts,
            after_thaw=judge.after_thaw,
            void=judge.reader.void,
            faults=self._nemesis.counts,
            digest=self._chronicle.digest(self._topics.workers.name),
            violations=violations,
        )

    def _disagreements(self) -> Iterator[str]:
        """In words, what readers of what compaction leaves take for other than it is; of now, and in the end."""
        state, reader = self._topics.job_state.name, self._judge.reader
        history = [event.record for event in self._chronicle.events if isinstance(event, Written) and event.record.topic == state]
        starts = {partition.partition: self._cluster.partition(partition).start for partition in self._queue()}
        left = compact(history)
        yield from compare(reader, left, starts)
        yield from superseded(reader, left)
        yield from compare(reader, self._cluster.topic_records(state), starts)

    def _look_at_holders(self) -> None:
        """Rule H4: an engine that its group has given up finds that out, and lets go of what it holds."""
        now, looked_at = self._loop.now, self._looked_at
        self._looked_at = now
        leases = {number: ledger.last_lease for number, ledger in self._judge.reader.ledgers.items()}
        before, self._leases = self._leases, leases
        foreign_before, self._foreign_since = self._foreign_since, {}
        for number, (holder, what) in self._held_by_others():
            since = max(foreign_before.get((number, holder), now), holder.thawed_at)
            self._foreign_since[number, holder] = since
            # What was written after the last look was written long after it should have let go.
            if looked_at > since + _LET_GO_SECONDS * self.scenario.pace and leases[number] != before[number]:
                self._judge.violations.append(Violation(now, _HOLDER, f"{what} for {now - since:.3f} s"))

    def _held_by_others(self) -> Iterator[tuple[int, tuple[SimulatedProcess, str]]]:
        """The partitions that an engine holds though its group has given them to another: nobody else can claim them."""
        given = {
            partition.partition: member.rpartition("-")[0]
            for member, partitions in self._cluster.members(self._topics.group(WORKER)).items()
            for partition in partitions
        }
        names = {process.log.name: process.name for process in self._engines}
        for number, ledger in sorted(self._judge.reader.ledgers.items()):
            holder = self._instances.get(instance_of(ledger.holder or ""))
            if ledger.released or holder is None or not holder.runs or number not in given:
                continue
            if holder.log.name != given[number]:
                yield number, (holder, f"partition {number} is held by {holder.name}, and is {names[given[number]]}'s")

    def _queue(self) -> list[TopicPartition]:
        return [partition for partition in self._cluster.ends() if partition.topic == self._topics.jobs_name(WORKER)]

    def _catch_up(self) -> None:
        events = self._chronicle.events
        first, self._judged = self._judged, len(events)
        self._judge.take(events[first:])

    def note_failure(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._failures.append(f"{context.get('message')}: {context.get('exception')!r}")

    # --- engines ----------------------------------------------------------------------------------------------------------

    @property
    def processes(self) -> Sequence[SimulatedProcess]:
        return [*(engine for engine in self._engines if not engine.is_dead), self._client]

    def start_one(self) -> None:
        process = self._process(f"engine-{len(self._engines) + 1}")
        self._engines.append(process)
        self._stops[process] = asyncio.Event(), [0.0]
        process.begin(self._live(process), "life")

    def stop_one(self, process: SimulatedProcess, grace_seconds: float) -> None:
        stop, grace = self._stops[process]
        grace[0] = grace_seconds
        stop.set()

    async def _live(self, process: SimulatedProcess) -> None:
        """What the program of an engine does; when that is over, the process is."""
        stop, grace = self._stops[process]
        supervisor, children = self._supervise(process) if self.scenario.supervised else (None, None)
        engine = WorkerEngine(
            self._settings,
            log=process.log,
            clock=process.clock,
            now=process.now,
            randomness=process.randomness,
            processes=SimulatedProcesses,
            guardian=supervisor,
        )
        process.fell = self._note_fall
        self._instances[engine.instance_id] = process
        engine.register_worker(simulated_worker(process, self._chronicle, self.scenario, children))
        with suppress(HeadraceError):  # it cannot reach the brokers, and is started once more
            await engine.start()
            stopping, ended = asyncio.create_task(stop.wait()), asyncio.create_task(engine.ended())
            await asyncio.wait({stopping, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await engine.stop(grace_seconds=grace[0])
                if supervisor is not None:
                    supervisor.ended()
            elif isinstance(crash := engine._crash, LeaseLost):
                # It cannot stop its jobs in time: its supervisor has to, and does so at once.
                self._nemesis.counts[FaultKind.KILLED_IN_TIME] += 1
            else:
                self._failures.append(f"{process.name} ended: {crash!r}")
        process.die()

    def _note_fall(self) -> None:
        self._nemesis.counts[FaultKind.POISONED] += 1

    def _supervise(self, process: SimulatedProcess) -> tuple[SimulatedSupervisor, ChildProcesses]:
        """Begins to watch over an engine, from outside of its process."""
        pace = self.scenario.pace
        children = ChildProcesses(process, self._chronicle, pace)
        supervisor = SimulatedSupervisor(process, children, self._topics.job_state.name, pace)

        def killed() -> None:
            self._nemesis.counts[FaultKind.KILLED_IN_TIME] += 1

        outside = contextvars.Context()
        self._watching |= {
            self._loop.create_task(children.run(), context=outside),
            self._loop.create_task(supervisor.run(killed), context=outside),
        }
        return supervisor, children

    async def _keep_engines(self) -> None:
        while True:
            await asyncio.sleep((1 + self._random.choice((0.0, 0.0, 30.0)) * self._random.random()) * self.scenario.pace)
            if len(self.processes) - 1 < self.scenario.engines:
                self.start_one()

    def _process(self, name: str) -> SimulatedProcess:
        scenario = self.scenario
        times = Times(scenario.session_timeout, _CONNECT_SECONDS * scenario.pace)
        process = SimulatedProcess(name, scenario.seed, self._loop, self._cluster, self._chronicle, times)
        self.everyone.append(process)
        return process

    # --- the cluster ------------------------------------------------------------------------------------------------------

    def _broker_time(self) -> int:
        return int((WALL_CLOCK_START + self._loop.now + self._nemesis.broker_offset) * 1000)

    def _latency(self) -> float:
        usual, longest = self.scenario.latency
        drawn = self._random.expovariate(1 / usual)
        return longest * self._random.random() if self._random.random() < 0.005 else drawn

    def compact(self) -> None:
        """Leaves the last record of each key, of all but the newest; which those are, no clock of a broker says here."""
        newest = self._loop.now - _COMPACTION_LAG_SECONDS * self.scenario.pace
        ends: dict[TopicPartition, int] = {}
        for event in self._chronicle.events:
            if isinstance(event, Written) and event.at <= newest and event.record.topic == self._topics.job_state.name:
                ends[TopicPartition(event.record.topic, event.record.partition)] = event.record.offset + 1
        for state, end in ends.items():
            old = [record for record in self._cluster.records(state) if record.offset < end]
            last = {record.key: record.offset for record in old}
            self._cluster.remove_records(state, [record.offset for record in old if last[record.key] != record.offset])


def _clear(loop: SimulationLoop, processes: Sequence[SimulatedProcess]) -> None:
    """Lets everything end that is left, also of processes that died: nobody hears of it any more."""
    loop.set_exception_handler(lambda *_: None)
    for process in processes:
        process.bury()
    for _ in range(3):
        left = asyncio.all_tasks(loop)
        if not left:
            break
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.wait(left, timeout=600))
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
