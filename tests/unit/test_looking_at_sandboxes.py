"""Who looks at the sandbox of a replay makes nothing in it, whether or not there is one of that name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from headrace import Client, NamespaceIsSandbox, Settings
from headrace.core.topics import Topics
from headrace.errors import TopicMissing
from headrace.memory.store import TopicMemoryStore
from headrace.replay_errors import SandboxUnknown
from headrace.testing import InMemoryLog
from headrace.views.jobs import JobView
from headrace.views.workers import WorkerDirectory
from support.virtual_time import in_virtual_time

NAME = "mine.replay-1"
TOPICS = Topics(NAME)

Look = Callable[[InMemoryLog, Path], Awaitable[object]]


def client_of(log: InMemoryLog, folder: Path) -> Client:
    return Client(Settings(namespace=NAME, data_directory=folder), log=log)


async def by_a_client(log: InMemoryLog, folder: Path) -> None:
    async with client_of(log, folder):
        pass


async def by_the_jobs(log: InMemoryLog, folder: Path) -> None:
    view = JobView(log, TOPICS, WorkerDirectory(log, TOPICS), folder / "jobs.sqlite")
    try:
        await view.start()
    finally:
        await view.stop()


async def by_the_workers(log: InMemoryLog, folder: Path) -> None:
    directory = WorkerDirectory(log, TOPICS)
    try:
        await directory.start()
    finally:
        await directory.stop()


async def by_the_memory(log: InMemoryLog, folder: Path) -> None:
    async with TopicMemoryStore(log, TOPICS):
        pass


async def by_dead_letters(log: InMemoryLog, folder: Path) -> None:
    async for _ in client_of(log, folder).dead_letters():
        raise AssertionError("there is none")


async def by_one_dead_letter(log: InMemoryLog, folder: Path) -> None:
    assert await client_of(log, folder).get_dead_letter(0, 0) is None


LOOKS: list[Look] = [by_a_client, by_the_jobs, by_the_workers, by_the_memory, by_dead_letters, by_one_dead_letter]


@pytest.mark.parametrize("look", LOOKS)
@in_virtual_time
async def test_where_there_is_no_sandbox_of_that_name_nothing_is_made(look: Look, tmp_path: Path) -> None:
    """It may be a slip of the pen, or a sandbox that was removed: no `clean` would ever find what were made."""
    log = InMemoryLog()
    with pytest.raises(
        SandboxUnknown, match=r"There is no sandbox of the name mine\.replay-1: .*--namespace mine --into 1 --keep`"
    ):
        await look(log, tmp_path)
    assert await log.topic_names() == set()


@pytest.mark.parametrize("look", LOOKS)
@in_virtual_time
async def test_in_one_that_is_just_made_or_removed_nothing_is_made(look: Look, tmp_path: Path) -> None:
    log = InMemoryLog()
    await log.create_topics([TOPICS.replay_marker])
    with pytest.raises(TopicMissing, match=r"The sandbox mine\.replay-1 has no topic mine\.replay-1\..*Try again in a moment"):
        await look(log, tmp_path)
    assert await log.topic_names() == {TOPICS.replay_marker.name}


@pytest.mark.parametrize("look", LOOKS)
@in_virtual_time
async def test_one_that_is_there_can_be_looked_at(look: Look, tmp_path: Path) -> None:
    log = InMemoryLog()
    await log.create_topics([TOPICS.replay_marker, *TOPICS.of_engine(["count"], 1, 1.0)])
    before = await log.topic_names()
    await look(log, tmp_path)
    assert await log.topic_names() == before


def test_nobody_answers_tool_calls_in_one(tmp_path: Path) -> None:
    with pytest.raises(NamespaceIsSandbox):
        client_of(InMemoryLog(), tmp_path).tool_calls(lambda *_: pytest.fail("nobody calls"), instance_id="1")
