"""What measurements work on: a queue that is filled before the clock starts."""

from __future__ import annotations

import asyncio

import pytest

from headrace.bench.workload import NoOp, new_workload
from headrace.errors import BrokerError
from headrace.settings import Settings

PATIENCE_SECONDS = 90.0


async def test_a_queue_that_cannot_be_filled_is_told_at_once(settings: Settings) -> None:
    workload = new_workload(settings)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            with pytest.raises(BrokerError, match=NoOp.name):
                await workload.fill(2_000)
            await workload.create()
            await workload.fill(2_000)
        assert await workload.log.partition_count(workload.queue) == 8
    finally:
        await workload.remove()
