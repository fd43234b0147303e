"""A process of a simulation: its own way to the cluster, clocks, ids and chance; it can be frozen, and it can die."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from random import Random
from typing import Any, NamedTuple

from headrace.core.lease import Moment
from headrace.testing.cluster import InMemoryCluster
from headrace.testing.log import InMemoryLog
from headrace.testing.simulation.chronicle import Chronicle, Fate
from headrace.testing.simulation.loop import Confined, SimulationLoop

WALL_CLOCK_START = 1_780_000_000.0
"""The time of day, in seconds since the Unix epoch, at which the virtual clock would stand at 0."""


# In a session's time: they are half of all messages.
_HEARTBEATS = 6


class Times(NamedTuple):
    """How long a group waits for a process that says nothing, and a process for an answer, in seconds."""

    session: float
    connect: float


class SimulatedProcess(Confined):
    """One process. When it is gone it is gone at once: nothing of it is cleaned up, and what it has sent is under way still.

    Attributes:
        name: tells it from all others of the run.
        random: its own chance.
        seed: of the run.
        wall_offset: how far its time of day is ahead, in seconds.
        asleep: whether all of its machine stands still, its supervisor too.
        spared: whether nothing else is done to it.
        thawed_at: when it last went on after it was frozen.
        died_with_machine: whether nobody is left to say that it has died.
        log: its way to the cluster.
        fell: called when a job of its own takes it along.
    """

    def __init__(
        self, name: str, seed: int, loop: SimulationLoop, cluster: InMemoryCluster, chronicle: Chronicle, times: Times
    ) -> None:
        super().__init__()
        self.name = name
        self.seed = seed
        self.random = Random(f"process {name} of {seed}")
        self.wall_offset = 0.0
        self.is_dead = False
        self.fell: Callable[[], None] | None = None
        self.asleep = False
        self.died_with_machine = False
        self.thawed_at = 0.0
        self.spared = False
        self._death = asyncio.Event()
        self._excused_until = 0.0
        self._loop = loop
        self._chronicle = chronicle
        self._stopped_at: float | None = None
        self._remains: set[asyncio.Task[Any]] = set()
        self.log: InMemoryLog = self.context.run(
            lambda: InMemoryLog(
                cluster,
                session_timeout=times.session,
                heartbeat_interval=times.session / _HEARTBEATS,
                connect_timeout=times.connect,
            )
        )

    # --- what its code sees -------------------------------------------------------------------------------------------

    def clock(self) -> Moment:
        """The clocks by which it holds leases: the steady one counts on while it is frozen, or its machine sleeps."""
        now = self._loop.now
        return Moment(now, WALL_CLOCK_START + now + self.wall_offset)

    def now(self) -> int:
        """The time of day, in milliseconds."""
        return int(self.clock().wall * 1000)

    def randomness(self, count: int) -> bytes:
        """So many random bytes."""
        return self.random.randbytes(count)

    def begin(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Runs something in this process."""
        return self._loop.create_task(work, name=f"{name} of {self.name}", context=self.context.copy())

    # --- what is done to it ---------------------------------------------------------------------------------------------

    @property
    def is_free(self) -> bool:
        """Whether it runs, and nothing is about to happen to it."""
        return self.runs and not self.is_dead and not self.spared and self._stopped_at is None

    def freeze(self) -> None:
        """Nothing of it runs any more until `thaw`; it stops where it waits for something."""
        self._stopped_at = self._loop.now
        self._loop.when_idle(self, self._stand_still)

    def _stand_still(self) -> None:
        if not self.is_dead:
            self.runs = False
            self.log.read_late()
            self._chronicle.fate(self.name, Fate.FROZEN)

    async def thaw(self, order: str, *, slept: bool, excused_seconds: float) -> None:
        """Lets it go on, with all that came meanwhile.

        Args:
            order: see `SimulationLoop.go_on`.
            slept: whether the clock of its event loop stood still, too, as that of a machine that was suspended does.
            excused_seconds: how long it may take until it first looks at its leases.
        """
        if self.is_dead or self.runs or self._stopped_at is None:
            return
        if slept:
            self.suspended_seconds += self._loop.now - self._stopped_at
        self._stopped_at = None
        self._excused_until = self._loop.now + excused_seconds
        self.thawed_at = self._loop.now
        self._chronicle.fate(self.name, Fate.THAWED, excused_seconds=excused_seconds)
        self._loop.go_on(self, order)
        # What it had asked for before comes first, as it was answered then.
        await asyncio.sleep(0.05)
        self.log.read_on()

    def die(self) -> None:
        """It is gone: nothing of it ever runs again."""
        if not self.is_dead:
            self.is_dead, self.runs = True, False
            # Somebody must know them still: what is forgotten is closed, and closing it is a way of going on.
            self._remains = asyncio.all_tasks(self._loop)
            self._death.set()
            # What its child processes did before anybody could look at the clock is not held against its death either.
            self._chronicle.fate(self.name, Fate.ENDED, excused_seconds=max(0.0, self._excused_until - self._loop.now))

    async def dead_within(self, seconds: float) -> bool:
        """Waits for its death, but not longer; tells whether it is dead."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._death.wait()
        return self.is_dead

    def fall(self) -> None:
        """A job of its own takes it along."""
        if not self.is_dead:
            self.die()
            if self.fell is not None:
                self.fell()

    def bury(self) -> None:
        """After the run: what is left of it may end in order, and nothing that it does is heard."""
        self.log.cut_off()
        if not self.runs:
            self._loop.go_on(self, "as-it-came")
