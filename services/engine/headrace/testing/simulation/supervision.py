"""The supervisor of a simulated engine, and what of an engine goes on while the engine itself does not: its child processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Literal

from headrace.codec import encode
from headrace.core.records import lease_key
from headrace.engine.partition import OwnedPartition
from headrace.models import ReleaseRecord
from headrace.ports import NewRecord, TopicPartition
from headrace.settings import Settings
from headrace.supervisor.told import Claim
from headrace.testing.cluster import InMemoryCluster
from headrace.testing.simulation.chronicle import Chronicle, Step
from headrace.testing.simulation.process import SimulatedProcess

_LOOK_SECONDS = 5.0
_TICK_SECONDS = 0.5

Attempt = tuple[str, tuple[int, int]]


class ChildProcesses:
    """Where half of an engine's attempts run: they work on when the engine is stopped, or dead, until they are killed.

    Attributes:
        running: the attempts of the engine, by job and token.
        killed: whether nothing of the engine's process group is left.
    """

    def __init__(self, process: SimulatedProcess, chronicle: Chronicle, pace: float) -> None:
        self._process = process
        self._chronicle = chronicle
        self._tick_seconds = _TICK_SECONDS * pace
        self._random = Random(f"children of {process.name} {process.seed}")
        self._in_children: dict[Attempt, bool] = {}
        self.killed = False

    def begin(self, attempt: Attempt) -> None:
        self._in_children[attempt] = self._random.random() < 0.5

    def end(self, attempt: Attempt) -> None:
        self._in_children.pop(attempt, None)

    async def run(self) -> None:
        """Until they are killed."""
        while not self.killed:
            await asyncio.sleep(self._tick_seconds)
            if self._process.asleep or (self._process.runs and not self._process.is_dead):
                continue
            for (job_id, token), in_child in list(self._in_children.items()):
                if in_child and not self.killed:
                    self._chronicle.step(Step.WORKED, self._process.name, job_id, token)


class SimulatedSupervisor:
    """Kills its engine when a lease is over, and releases what it held when it is gone. It is the engine's `Guardian`.

    Attributes:
        stopped_in_order: set by the engine's program when it ends by its own will.
    """

    def __init__(self, process: SimulatedProcess, children: ChildProcesses, topic: str, pace: float) -> None:
        self._process = process
        self._children = children
        self._topic = topic
        self._pace = pace
        self._cluster: InMemoryCluster = process.log.cluster
        self._random = Random(f"supervisor of {process.name} {process.seed}")
        self._claims: dict[int, Claim] = {}
        self._deadlines: dict[OwnedPartition, float] = {}
        self._member_ids: dict[str, Callable[[], str]] = {}
        self.stopped_in_order = False

    # --- what the engine tells --------------------------------------------------------------------------------------------

    def introduce(self, settings: Settings, instance_id: str, orphaned: Callable[[], None]) -> None:
        pass

    def started(self) -> None:
        pass

    def ended(self) -> None:
        self.stopped_in_order = True

    def holds(self, partition: OwnedPartition) -> None:
        worker, number = partition.recovery.worker, partition.source.partition
        self._claims[number] = Claim(worker, number, partition.state_partition, partition.writer.epoch, partition.lease_name)
        now = partition.clock()
        self._deadlines[partition] = now.steady + partition.lease.remaining(now)

    def vacated(self, partition: OwnedPartition) -> None:
        self._deadlines.pop(partition, None)

    def released(self, partition: OwnedPartition) -> None:
        claim = self._claims.get(partition.source.partition)
        if claim is not None and claim.epoch == partition.writer.epoch:
            del self._claims[partition.source.partition]
        self.vacated(partition)

    def belongs(self, group: str, member_id: Callable[[], str]) -> None:
        self._member_ids[group] = member_id

    def left(self, group: str) -> None:
        self._member_ids.pop(group, None)

    # --- what it does -----------------------------------------------------------------------------------------------------

    async def run(self, killed: Callable[[], None]) -> None:
        """Watches over its engine to the end, and then says that it is gone.

        Args:
            killed: called when it has killed it.
        """
        while not self._process.is_dead:
            if not self._process.asleep and self._is_over():
                killed()
                self._process.die()
                self._children.killed = True  # with the same signal
                break
            left = min(self._deadlines.values(), default=self._now() + _LOOK_SECONDS) - self._now()
            # While its machine sleeps, so does the supervisor; it looks at the clock twice a second.
            await self._process.dead_within(0.5 * self._pace if self._process.asleep else min(max(left, 0.01), _LOOK_SECONDS))
        if self._process.died_with_machine:
            self._children.killed = True
            return
        await self._wait_for_group()
        await self._release()

    def _now(self) -> float:
        return self._process.clock().steady

    def _is_over(self) -> bool:
        """Rule H3: the deadline of a lease has come, and jobs may still run under it."""
        return self._now() >= min(self._deadlines.values(), default=float("inf"))

    async def _wait_for_group(self) -> None:
        """Of an engine that died by itself the children live on until they are found."""
        if self._children.killed:
            return
        await asyncio.sleep(self._random.uniform(0.0, 1.5) * self._pace)
        self._children.killed = True

    async def _release(self) -> None:
        """Rule R2, as late as it may be: it is void where the claim was superseded."""
        await asyncio.sleep(self._random.choice((0.1, 1.0, 1.0, 60.0)) * self._random.random() * self._pace)
        reason: Literal["died", "stopped"] = "stopped" if self.stopped_in_order else "died"
        for claim in self._claims.values():
            record = ReleaseRecord(
                worker_name=claim.worker,
                partition=claim.partition,
                instance_id=claim.lease,
                epoch=claim.epoch,
                reason=reason,
            )
            key = lease_key(claim.worker, claim.partition, claim.lease)
            self._cluster.append(TopicPartition(self._topic, claim.state_partition), NewRecord(key, encode(record)))
        for group, member_id in self._member_ids.items():
            self._cluster.group(group).leave(member_id())
