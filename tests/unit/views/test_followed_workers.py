"""Which workers' topics a view of jobs follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.job_views import PATIENCE, eventually, opened, statuses
from support.written_jobs import TOPICS, Engines, WrittenLog

pytestmark = pytest.mark.usefixtures("quick", "both_keepers")


async def test_a_new_worker_is_followed(log: WrittenLog, path: Path) -> None:
    async with opened(log, path) as view:
        late = Engines(log, "late")
        late.enqueue("before")
        late.define()
        await view.catch_up(PATIENCE)
        assert await statuses(view) == {"before": "queued"}


async def test_a_worker_whose_topic_comes_after_its_definition(log: WrittenLog, path: Path) -> None:
    late = Engines(log, "late")
    late.define()
    log.cluster.delete_topics([TOPICS.jobs_name("late")])
    async with opened(log, path) as view:
        assert await statuses(view) == {}
        log.cluster.create_topics([TOPICS.jobs("late")])
        late.enqueue("a")
        await eventually(view, {"a": "queued"})


async def test_who_asks_for_all_jobs_waits_for_no_worker_that_has_no_topic(log: WrittenLog, path: Path) -> None:
    late = Engines(log, "late")
    late.define()
    log.cluster.delete_topics([TOPICS.jobs_name("late")])
    async with opened(log, path) as view:
        await view.catch_up(PATIENCE)
        assert await statuses(view) == {}
        # From now on it has one, which is waited for.
        log.cluster.create_topics([TOPICS.jobs("late")])
        late.enqueue("a")
        await view.catch_up(PATIENCE)
        assert await statuses(view) == {"a": "queued"}
