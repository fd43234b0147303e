"""Jobs that rest: each is due at its time, and a partition that goes leaves nothing behind."""

from __future__ import annotations

import asyncio

from headrace.core.recovery import PartitionRecovery
from headrace.engine.guarding import UNGUARDED
from headrace.engine.partition import OwnedPartition, Phase, Work
from headrace.engine.rests import Rests
from headrace.ports import TopicPartition
from support.memory_engines import loop_clock, passing
from support.virtual_time import in_virtual_time


def partition(number: int) -> OwnedPartition:
    return OwnedPartition(TopicPartition("jobs", number), number, PartitionRecovery("w", number, 0))


class Bench:
    """Jobs that rest, and when each was due."""

    def __init__(self) -> None:
        self.due: list[tuple[int, float]] = []
        self.rests = Rests(loop_clock, self._note, UNGUARDED)
        self._began = asyncio.get_running_loop().time()

    def rest(self, of: OwnedPartition, offset: int, seconds: float) -> Work:
        work = Work(of, offset, (of.source.partition, f"key-{offset}"), of.unbegun)
        self.rests.add(work, seconds)
        return work

    def _note(self, work: Work) -> None:
        self.due.append((work.offset, round(asyncio.get_running_loop().time() - self._began, 3)))


@in_virtual_time
async def test_each_is_due_at_its_time_whatever_the_order_in_which_they_came() -> None:
    bench, one = Bench(), partition(0)
    for offset, seconds in ((1, 30.0), (2, 1.0), (3, 12.0), (4, -5.0), (5, 1.0)):
        assert bench.rest(one, offset, seconds).phase is Phase.RESTING
    assert one.held_back == len(bench.rests) == 5
    await passing(60)
    assert bench.due == [(4, 0), (2, 1), (5, 1), (3, 12), (1, 30)]
    assert (one.held_back, len(bench.rests)) == (0, 0)


@in_virtual_time
async def test_a_partition_that_goes_leaves_nothing_behind_and_one_that_stays_goes_on() -> None:
    bench, gone, kept = Bench(), partition(0), partition(1)
    bench.rest(gone, 1, 5)
    bench.rest(kept, 2, 10)
    bench.rest(gone, 3, 20)
    bench.rests.forget(gone)
    assert (gone.held_back, kept.held_back, len(bench.rests)) == (0, 1, 1)
    await passing(60)
    assert bench.due == [(2, 10)]


@in_virtual_time
async def test_nothing_is_due_when_it_has_stopped() -> None:
    bench, one = Bench(), partition(0)
    bench.rest(one, 1, 5)
    bench.rests.stop()
    await passing(60)
    assert bench.due == []
