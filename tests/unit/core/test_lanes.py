"""Jobs of one key run in order and one at a time; all others side by side, up to the slots."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace.core.lanes import Lanes


@dataclass(eq=False)
class Job:
    number: int
    lane: tuple[int, str] | None


class LanesMachine(RuleBasedStateMachine):
    """Drives the lanes with any order of calls, beside the simplest bookkeeping."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes: Lanes[Job] = Lanes(3)
        self.waiting: list[Job] = []
        self.running: list[Job] = []
        self.ending: list[Job] = []
        self.started: dict[tuple[int, str], list[int]] = {}
        self.count = 0

    @rule(partition=st.integers(0, 1), key=st.sampled_from(["a", "b", None]))
    def add(self, partition: int, key: str | None) -> None:
        job = Job(self.count, None if key is None else (partition, key))
        self.count += 1
        occupied = {each.lane for each in self.waiting + self.running + self.ending if each.lane}
        assert self.lanes.add(job) == (job.lane not in occupied)
        self.waiting.append(job)

    @rule(partition=st.integers(0, 1), key=st.sampled_from(["a", "b", None]))
    def reserve(self, partition: int, key: str | None) -> None:
        """A job whose time has not come: where it gets its lane, it stands like one that has yet to start again."""
        job = Job(self.count, None if key is None else (partition, key))
        self.count += 1
        occupied = {each.lane for each in self.waiting + self.running + self.ending if each.lane}
        reserved = self.lanes.reserve(job)
        assert reserved == (job.lane not in occupied)
        if reserved:
            self.ending.append(job)

    @rule()
    def take(self) -> None:
        job = self.lanes.take()
        occupied = {each.lane for each in self.running + self.ending if each.lane}
        startable = [each for each in self.waiting if each.lane is None or each.lane not in occupied]
        if len(self.running) >= 3 or not startable:
            assert job is None
        else:
            assert job is not None, "a job could have started, and did not"
            assert job in startable
            if job.lane is not None:
                assert job is next(each for each in self.waiting if each.lane == job.lane), "out of order within its key"
            self.waiting.remove(job)
            self.running.append(job)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def work_is_over(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.running))
        self.running.remove(job)
        self.ending.append(job)
        self.lanes.free_slot()

    @precondition(lambda self: self.ending)
    @rule(data=st.data())
    def end_is_acknowledged(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.ending))
        self.ending.remove(job)
        waits = job.lane is not None and (each for each in self.waiting if each.lane == job.lane)
        assert self.lanes.leave_lane(job) is (next(waits, None) if waits else None)

    @precondition(lambda self: self.ending)
    @rule(data=st.data())
    def starts_again(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.ending))
        self.ending.remove(job)
        self.waiting.insert(0, job)
        self.lanes.put_back(job)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """A job that waits is cancelled: where it was the next of its lane, it keeps that until its end is acknowledged."""
        job = data.draw(st.sampled_from(self.waiting))
        occupied = {each.lane for each in self.running + self.ending if each.lane}
        first = job is next(each for each in self.waiting if each.lane == job.lane)
        had_its_lane = job.lane is None or (first and job.lane not in occupied)
        assert self.lanes.remove(job) == had_its_lane
        self.waiting.remove(job)
        if had_its_lane:
            self.ending.append(job)

    @rule(partition=st.integers(0, 1))
    def drop_partition(self, partition: int) -> None:
        def is_dropped(job: Job) -> bool:
            return job.lane is not None and job.lane[0] == partition

        self.lanes.drop(is_dropped)
        self.waiting = [job for job in self.waiting if not is_dropped(job)]

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.lanes) == len(self.waiting)
        assert self.lanes.taken == len(self.running) <= 3


TestLanes = LanesMachine.TestCase


@given(st.lists(st.sampled_from(["a", "b", None]), max_size=30))
def test_everything_runs_in_the_end(keys: list[str | None]) -> None:
    lanes: Lanes[Job] = Lanes(2)
    for number, key in enumerate(keys):
        lanes.add(Job(number, None if key is None else (0, key)))
    done = []
    while (job := lanes.take()) is not None:
        lanes.free_slot()
        lanes.leave_lane(job)
        done.append(job.number)
    assert sorted(done) == list(range(len(keys)))
