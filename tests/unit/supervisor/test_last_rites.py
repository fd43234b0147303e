"""How long it takes at most to say in the log that an engine is gone."""

from __future__ import annotations

import asyncio

import pytest

from headrace.supervisor import last_rites, supervisor
from headrace.supervisor.last_rites import LastWill, release
from headrace.supervisor.told import Claim
from headrace.testing import InMemoryCluster, InMemoryLog
from support.memory_engines import STATE, TOPICS, wall_clock
from support.virtual_time import in_virtual_time

# To start a process, and beside each step to cut off a client that does not end.
_BESIDE_SECONDS = 8.0

WILL = LastWill(
    bootstrap_servers="",
    topic=STATE,
    instance_id="dead",
    reason="died",
    claims=[Claim("things", number, number, 0, "dead") for number in range(3)],
    members={},
)


class SlowLog(InMemoryLog):
    """Its writers take a while to start."""

    def __init__(self, cluster: InMemoryCluster, seconds: float) -> None:
        super().__init__(cluster)
        self._seconds = seconds

    def writer(self):  # type: ignore[no-untyped-def]
        writer = super().writer()
        start = writer.start

        async def start_late() -> None:
            await asyncio.sleep(self._seconds)
            await start()

        writer.start = start_late  # type: ignore[method-assign]
        return writer


@pytest.mark.parametrize("seconds", [0.0, 10.0])
@in_virtual_time
async def test_a_release_that_nobody_answers_ends_in_time_however_long_the_start_takes(seconds: float) -> None:
    cluster = InMemoryCluster(now=wall_clock)
    cluster.create_topics([TOPICS.job_state])
    log = SlowLog(cluster, seconds)
    log.hold_appends(STATE)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    assert await release(WILL, log) == 0
    took = loop.time() - begun
    assert last_rites._RELEASE_SECONDS - 1 < took < last_rites._RELEASE_SECONDS + last_rites._STOP_SECONDS + 1


@in_virtual_time
async def test_a_start_that_does_not_end_is_given_up() -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    with pytest.raises(TimeoutError):
        await release(WILL, SlowLog(InMemoryCluster(now=wall_clock), 3_600.0))
    assert loop.time() - begun < last_rites._RELEASE_SECONDS + 1


def test_all_of_it_is_over_before_the_supervisor_ends_it() -> None:
    steps = last_rites._RELEASE_SECONDS + last_rites._STOP_SECONDS + last_rites._LEAVE_SECONDS
    assert steps + _BESIDE_SECONDS <= supervisor._RITES_SECONDS
