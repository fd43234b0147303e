"""A replay in a sandbox ends when what was recorded cannot be read."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from headrace import JobContext
from headrace.errors import BrokerUnreachable
from headrace.ports import RecordingKey
from headrace.replay import Pacing, Rerunner, Span, StreamReplay, Wanted
from headrace.replay.sandboxed import SandboxRun
from headrace.testing import InMemoryLog
from support.histories import InMemoryHistory, recorded_job
from support.memory_engines import Bench
from support.reruns import Does


class Away(InMemoryHistory):
    async def recordings(self, job_id: str, attempt: int) -> Mapping[RecordingKey, bytes]:
        raise BrokerUnreachable("no broker")


async def test_brokers_that_are_away_end_it(tmp_path: Path) -> None:
    async def returns(args: dict[str, Any], ctx: JobContext) -> Any:
        return 1

    bench, history, worker = Bench(tmp_path), Away([recorded_job("does")]), Does(returns)
    wanted = Wanted(span=Span(0, 1 << 50))
    async with Rerunner(history, [worker]) as rerunner:
        replay = StreamReplay(history, rerunner, wanted, Pacing(concurrency=1))
        run = SandboxRun(InMemoryLog(bench.cluster), bench.settings, {"does": worker}, replay)
        with pytest.raises(BrokerUnreachable, match="no broker"):
            async with asyncio.timeout(20):
                await run.run()
