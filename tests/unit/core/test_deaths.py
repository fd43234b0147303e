"""How often a job's process died is a function of the log: whoever reads it, from wherever, counts each death once (rule X1)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from headrace.core import snapshots
from headrace.core.checkpoint import Checkpoint, Pointer
from headrace.core.ownership import NO_OFFSET
from headrace.core.records import SnapshotHeaders
from headrace.core.recovery import PartitionRecovery
from headrace.core.snapshots import MostDeaths, Snapshot, Writer, version_of
from headrace.core.status import TERMINAL, JobStatus

AT = "2026-03-02T09:30:00.000Z"
JOBS = range(4)


@dataclass
class World:
    """One partition of `job-state`, its holder, and what really happened to its jobs.

    Attributes:
        log: each record as (kind, what it carries), by offset.
        held: how each begun job stands by its holder's last acknowledgement.
        latest: the newest valid snapshot of each job.
        deaths: of processes, while each job ran there.
        beside: of processes, while each job ran beside them in one of its own.
        pointers: that a commit may have named so far.
    """

    log: list[tuple[str, Any]] = field(default_factory=list)
    epoch: int = NO_OFFSET
    last_lease: int = NO_OFFSET
    held: dict[int, Snapshot] = field(default_factory=dict)
    latest: dict[int, Snapshot] = field(default_factory=dict)
    deaths: Counter[int] = field(default_factory=Counter)
    beside: Counter[int] = field(default_factory=Counter)
    pointers: list[Pointer | None] = field(default_factory=lambda: [None])

    def append(self, kind: str, carried: Any) -> int:
        self.log.append((kind, carried))
        return len(self.log) - 1

    def write(self, job: int, snapshot: Snapshot) -> None:
        self.append("snapshot", (job, snapshot))
        self.latest[job] = self.held[job] = snapshot

    def read(self, pointer: Pointer | None) -> dict[int, Snapshot]:
        """What a successor finds that begins to read there: the jobs that were begun, as it goes on with them."""
        recovery: PartitionRecovery[Snapshot] = PartitionRecovery("w", 0, 0, pointer)
        for offset in range(recovery.begins_at, len(self.log)):
            kind, carried = self.log[offset]
            if kind == "claim":
                valid = recovery.ledger.claim(offset, carried, "i")
            elif kind == "renewal":
                valid = recovery.ledger.renewal(offset, carried, "i")
            elif kind == "release":
                valid = recovery.ledger.release(offset, carried[0], "i", died=carried[1])
            else:
                valid = False
                if kind == "checkpoint":
                    recovery.take_checkpoint(carried)
                else:
                    job, snapshot = carried
                    version = version_of(snapshot)
                    outdone = version._replace(sequence=version.sequence + 1) if kind == "repeat" else None
                    recovery.snapshot(SnapshotHeaders("w", 0, job, version, snapshot["status"], outdone), b"j", snapshot)
            if valid:
                recovery.lease_taken()
        assert recovery.is_complete
        found = {}
        for job, begun in recovery.begun().items():
            fields = begun.snapshot if begun.fields is None else begun.fields
            assert fields is not None
            found[job] = snapshots.crashed(fields) if begun.died else dict(fields)
        return found

    def repeat(self, job: int) -> None:
        """A janitor has found void last words of a former holder above the newest snapshot, and writes that once more."""
        if job in self.latest:
            self.append("repeat", (job, self.latest[job]))

    def take_over(self, pointer: Pointer | None) -> None:
        self.epoch = self.last_lease = self.append("claim", self.last_lease)
        self.held = self.read(pointer)

    def checkpoint(self) -> None:
        covers = self.last_lease + 1
        self.last_lease = self.append("renewal", self.epoch)
        begun = {job: ("j", fields) for job, fields in self.held.items() if fields["status"] not in TERMINAL}
        ended = [(job, job) for job in sorted(self.latest) if self.latest[job]["status"] in TERMINAL]
        self.append("checkpoint", Checkpoint(self.epoch, covers, 0, ended, begun))
        self.pointers.append(Pointer(self.epoch, covers))

    def step(self, job: int, move: str) -> None:
        """The holder writes the next snapshot of a job, if it can be."""
        if self.latest.get(job, {}).get("status") in TERMINAL:
            return
        before = self.held.get(job) or snapshots.unbegun()
        runs_here = before["status"] == JobStatus.RUNNING and before["epoch"] == self.epoch
        if move == "start" and not runs_here:
            if snapshots.is_isolated(before):
                before = {**before, "isolated": True}
            self.write(job, snapshots.running(before, Writer("i", self.epoch), AT))
        elif move == "complete" and runs_here:
            self.write(job, snapshots.completed(before, None, AT))
        elif move == "retry" and runs_here:
            self.write(job, snapshots.retried(before, {"type": "x", "message": "y"}, AT, AT))
        elif move == "progress" and runs_here:
            self.write(job, snapshots.progressed(before, {"fraction": 0.5, "at": AT}, AT))

    def die(self, *, said: int) -> None:
        """The holder's process ends. Its supervisor says so once, or again where it does not know whether it was heard."""
        for _ in range(said):
            self.append("release", (self.epoch, True))
        if said:
            for job, snapshot in self.latest.items():
                if self._runs(snapshot):
                    (self.beside if snapshot.get("isolated") else self.deaths)[job] += 1

    def stop(self) -> None:
        for job, snapshot in list(self.latest.items()):
            if self._runs(snapshot):
                self.write(job, snapshots.interrupted(self.held[job], AT))
        self.append("release", (self.epoch, False))

    def _runs(self, snapshot: Snapshot) -> bool:
        return bool(snapshot["status"] == JobStatus.RUNNING and snapshot["epoch"] == self.epoch)


MOVES = st.tuples(
    st.sampled_from(JOBS), st.sampled_from(("start", "start", "complete", "retry", "progress", "checkpoint", "repeat"))
)
LIVES = st.lists(st.tuples(st.lists(MOVES, max_size=8), st.sampled_from(("died", "died twice", "lapsed", "stopped"))), max_size=7)


@given(LIVES, st.data())
def test_every_reader_counts_each_death_once(lives: list[tuple[list[tuple[int, str]], str]], data: st.DataObject) -> None:
    world = World()
    for moves, end in lives:
        # A commit is late as it likes; the newest checkpoint that it may name is what a successor begins with as a rule.
        world.take_over(data.draw(st.sampled_from(world.pointers)))
        for job, move in moves:
            if move == "checkpoint":
                world.checkpoint()
            elif move == "repeat":
                world.repeat(job)
            else:
                world.step(job, move)
        match end:
            case "died" | "died twice":
                world.die(said=1 if end == "died" else 2)
            case "stopped":
                world.stop()
    for pointer in world.pointers:
        found = world.read(pointer)
        begun = {job for job, snapshot in world.latest.items() if snapshot["status"] not in TERMINAL}
        assert found.keys() == begun
        assert {job: snapshots.crashes(found[job]) for job in begun} == {job: world.deaths[job] for job in begun}
        assert {job: snapshots.engine_deaths(found[job]) for job in begun} == {job: world.beside[job] for job in begun}


def test_the_count_is_written_with_the_next_attempt() -> None:
    world = World()
    for number in range(1, 4):
        world.take_over(None)
        world.step(0, "start")
        assert snapshots.crashes(world.latest[0]) == number - 1
        world.die(said=1)


def test_a_death_is_not_counted_again_after_a_checkpoint_that_has_it() -> None:
    """The job waits in the second process, whose checkpoint tells of the death; a commit may still name the one before."""
    world = World()
    world.take_over(None)
    world.step(0, "start")
    world.checkpoint()
    world.checkpoint()  # who begins to read here meets the job in checkpoints alone
    world.die(said=1)
    world.take_over(world.pointers[-1])
    world.checkpoint()
    world.checkpoint()
    assert {pointer: snapshots.crashes(world.read(pointer)[0]) for pointer in world.pointers} == dict.fromkeys(world.pointers, 1)


def test_a_death_that_a_checkpoint_has_is_counted_though_the_snapshot_before_it_is_repeated() -> None:
    """A janitor knows no deaths: it writes again what the dead one had written."""
    world = World()
    world.take_over(None)
    world.step(0, "start")
    world.die(said=1)
    world.take_over(None)
    world.checkpoint()
    world.checkpoint()
    world.repeat(0)
    world.checkpoint()
    assert {pointer: snapshots.crashes(world.read(pointer)[0]) for pointer in world.pointers} == dict.fromkeys(world.pointers, 1)


def test_a_death_counts_for_what_ran_under_that_claim_alone() -> None:
    """The job waited behind others in the second process, which died too."""
    world = World()
    world.take_over(None)
    world.step(0, "start")
    world.step(1, "start")
    world.step(1, "retry")
    world.die(said=1)
    world.take_over(None)
    world.checkpoint()
    world.die(said=1)
    for pointer in world.pointers:
        assert {job: snapshots.crashes(fields) for job, fields in world.read(pointer).items()} == {0: 1, 1: 0}


def test_the_death_of_an_engine_is_counted_apart_for_what_ran_in_a_process_of_its_own() -> None:
    beside = {"status": "running", "crashes": 2, "isolated": True}
    assert snapshots.crashed(beside) == {**beside, "engineDeaths": 1}
    assert snapshots.crashed({**beside, "engineDeaths": 1}) == {**beside, "engineDeaths": 2}
    assert snapshots.crashed({**beside, "isolated": False}) == {**beside, "isolated": False, "crashes": 3}


def test_it_takes_many_deaths_beside_a_job_to_make_it_poison() -> None:
    most = MostDeaths(processes=3, engines=10)
    isolated = {"crashes": 2, "isolated": True}
    assert not snapshots.is_poison({**isolated, "engineDeaths": 9}, most)
    assert snapshots.is_poison({**isolated, "engineDeaths": 10}, most)
    assert snapshots.is_poison({**isolated, "crashes": 3}, most)


def test_a_job_that_ends_its_engines_from_a_process_of_its_own_is_poison_in_the_end() -> None:
    world = World()
    lives = 0
    while not snapshots.is_poison(world.held.get(0, {}), MostDeaths()):
        world.take_over(None)
        world.step(0, "start")
        world.checkpoint()
        world.die(said=1)
        world.held = world.read(world.pointers[-1])
        lives += 1
        assert lives <= 12
    assert (snapshots.crashes(world.held[0]), snapshots.engine_deaths(world.held[0]), lives) == (2, 10, 12)
