"""Doing what a plan says to the engines and brokers of a run."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from chaos.brokers import Brokers
from chaos.fleet import Fleet, Unit, lives
from chaos.ledger import SECOND, Fault, Ledger, now
from chaos.plan import Step

LEAST_UNITS = 2
MOST_UNITS = 4
TARGET_SECONDS = 25.0
POLL_SECONDS = 0.1
MIND_SECONDS = 0.5
ORPHAN_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class Done:
    """A fault that was done, with when it began and was over."""

    detail: str
    began: int
    ended: int


@dataclass(slots=True)
class Faults:
    """Carries out a plan. One fault at a time concerns a unit, or the brokers; others go on beside it.

    Attributes:
        say: takes a line for people about what is done.
        remarks: what was seen on the way and is worth a look.
        misbehaved: what must not be: engines that outlive their supervisor, and supervisors that end by themselves.
        vanished: engines, with their units, that ended and were sent no signal by this run. Poison jobs do that.
    """

    fleet: Fleet
    brokers: Brokers
    ledger: Ledger
    chance: random.Random
    say: Callable[[str], None]
    remarks: list[str] = field(default_factory=list)
    misbehaved: list[str] = field(default_factory=list)
    vanished: list[tuple[str, int]] = field(default_factory=list)
    _rolling: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def carry_out(self, steps: Iterable[Step]) -> None:
        """Returns when the last of them is over."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as tasks:
            for step in steps:
                await asyncio.sleep(max(0.0, began + step.at - loop.time()))
                tasks.create_task(self._do(step))

    async def _do(self, step: Step) -> None:
        acts: dict[str, Callable[[Step], Awaitable[Done | None]]] = {
            "kill broker": self._kill_broker,
            "restart broker": self._restart_broker,
            "rolling restart": self._rolling_restart,
            "scale up": self._scale_up,
            "scale down": self._scale_down,
            "kill engine": self._kill_engine,
            "kill supervisor": self._kill_supervisor,
        }
        done = await acts.get(step.kind, self._freeze)(step)
        if done is None:
            self.say(f"{step.kind}: left out, since there is nothing to do it to")
        else:
            self.ledger.note(Fault(done.began, step.kind, round((done.ended - done.began) / SECOND, 3), done.detail))

    # --- brokers ----------------------------------------------------------------------------------------------------------

    async def _kill_broker(self, step: Step) -> Done | None:
        return await self._broker_away(step, killed=True)

    async def _restart_broker(self, step: Step) -> Done | None:
        return await self._broker_away(step, killed=False)

    async def _broker_away(self, step: Step, *, killed: bool) -> Done | None:
        number = self.chance.randrange(self.brokers.count) + 1
        async with self.brokers.one_at_a_time:
            began = now()
            self.say(f"{step.kind}: node {number}, away for {step.seconds:g} s")
            if (trouble := await self.brokers.away(number, step.seconds, killed=killed)) is not None:
                self.remarks.append(f"node {number} did not serve again at the first try: {trouble}")
            ended = now()
            if not await self.brokers.whole():
                self.remarks.append(f"node {number} was not in sync again in time after it had been started")
            return Done(f"node {number}", began, ended)

    # --- units ------------------------------------------------------------------------------------------------------------

    async def _target(self) -> Unit | None:
        """A unit that is left alone at the moment and has an engine, busy from now on; another one must go on meanwhile."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + TARGET_SECONDS
        while len(free := [unit for unit in self.fleet.free() if unit.engines()]) < LEAST_UNITS:
            if loop.time() >= deadline:
                return None
            await asyncio.sleep(POLL_SECONDS)
        unit = self.chance.choice(free)
        unit.busy = True
        return unit

    async def _kill_engine(self, step: Step) -> Done | None:
        if (unit := await self._target()) is None:
            return None
        began = now()
        for pid in unit.engines():
            self.say(f"kill -9 of the engine {pid} of {unit.name}")
            self.fleet.send(pid, "SIGKILL")
        unit.busy = False
        return Done(unit.name, began, now())

    async def _kill_supervisor(self, step: Step) -> Done | None:
        if (unit := await self._target()) is None:
            return None
        began = now()
        self.say(f"kill -9 of {unit.name}, process {unit.pid}")
        self.fleet.kill_supervisor(unit)
        await self._replace(unit, step.seconds)
        return Done(unit.name, began, now())

    async def _replace(self, unit: Unit, seconds: float) -> None:
        """Another unit comes after a dead one, of which nothing may live on."""
        await self.fleet.gone(unit, within=10)
        await asyncio.sleep(seconds)
        self.fleet.start()
        if left := await self.fleet.orphans(unit, within=ORPHAN_SECONDS):
            self.misbehaved.append(f"engines {left} of {unit.name} live {ORPHAN_SECONDS:g} s after their supervisor was killed")
            for pid in left:
                self.fleet.send(pid, "SIGKILL")
        self.fleet.forget(unit)

    async def _freeze(self, step: Step) -> Done | None:
        if (unit := await self._target()) is None:
            return None
        engines = unit.engines()
        pids = {"freeze engine": engines, "freeze supervisor": [unit.pid]}.get(step.kind, [unit.pid, *engines])
        self.say(f"{step.kind}: {unit.name} for {step.seconds:g} s, processes {pids}")
        frozen = now()
        for pid in pids:
            self.fleet.send(pid, "SIGSTOP")
        await asyncio.sleep(step.seconds)
        alive = [pid for pid in pids if lives(pid)]
        thawed = now()
        # The engine first: thawed before its supervisor, it gets the moment in which nobody stops it.
        for pid in reversed(pids):
            self.fleet.send(pid, "SIGCONT")
        unit.busy = False
        return Done(f"{unit.name}, of {len(pids)} processes {len(alive)} were there to thaw", frozen, thawed)

    async def _scale_up(self, step: Step) -> Done | None:
        began = now()
        if len([unit for unit in self.fleet.units if unit.running]) >= MOST_UNITS:
            self.say("scale up: there are as many engines as this machine takes; one goes first")
            if await self._scale_down(step) is None:
                return None
        unit = self.fleet.start()
        self.say(f"scale up: {unit.name}, process {unit.pid}")
        return Done(unit.name, began, now())

    async def _scale_down(self, step: Step) -> Done | None:
        if len(self.fleet.free()) <= LEAST_UNITS:
            self.say("scale down: one comes first, so that another may go")
            self.fleet.start()
        if (unit := await self._target()) is None:
            return None
        began = now()
        self.say(f"scale down: SIGTERM to {unit.name}, process {unit.pid}")
        await self._end(unit)
        return Done(unit.name, began, now())

    async def _end(self, unit: Unit) -> None:
        if not await self.fleet.stop(unit):
            self.remarks.append(f"{unit.name} did not end in time after SIGTERM, and was killed")

    async def _rolling_restart(self, step: Step) -> Done | None:
        async with self._rolling:
            began, units = now(), self.fleet.free()
            self.say(f"rolling restart of {', '.join(unit.name for unit in units)}")
            count = 0
            for unit in units:
                if unit.busy or not unit.running:  # another fault has come first
                    continue
                unit.busy = True
                self.fleet.start()
                await self._end(unit)
                count += 1
            return Done(f"{count} units", began, now()) if count else None

    async def mind(self) -> None:
        """Notes what ends that nobody has ended, and starts another where no supervisor does, until it is cancelled."""
        while True:
            for unit in list(self.fleet.units):
                if unit.running:
                    for pid in self.fleet.vanished(unit):
                        self.vanished.append((unit.name, pid))
                elif not unit.expected_to_end:
                    self.misbehaved.append(f"{unit.name} ended by itself, with {unit.process.returncode}")
                    self.fleet.forget(unit)
                    self.fleet.start()
            await asyncio.sleep(MIND_SECONDS)
