"""The memory of conversations on a real broker: many processes at once, restarts, kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from headrace.core.partitions import key_partition
from headrace.core.topics import Topics
from headrace.kafka.log import KafkaLog
from headrace.memory import Memory, StoreOptions, TopicMemoryStore
from headrace.memory.tables import key_of
from headrace.ports import NewCompaction, NewEntry, TopicPartition
from headrace.settings import Settings
from support.engines import read_all
from support.memory_user import ENTRIES, ROUNDS, SHARED, seen
from support.processes import read_line

PROCESSES = 4
TESTS = Path(__file__).parents[1]
SAMPLE = "second-bakery"
SAMPLE_PATH = Path(str(files("headrace").joinpath(f"samples/{SAMPLE}.conversation.json")))
DOCUMENTATION = (TESTS.parent / "docs" / "memory.md").read_text("utf-8")
SAMPLE_TEXT = SAMPLE_PATH.read_text("utf-8")


def memory_user(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "support.memory_user", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def said(*ids: str) -> list[NewEntry]:
    return [NewEntry(role="user", content=f"what {entry_id} says", id=entry_id) for entry_id in ids]


async def test_four_processes_append_to_and_compact_one_conversation(
    settings: Settings, log: KafkaLog, namespace: str, tmp_path: Path
) -> None:
    servers = settings.bootstrap_servers
    assert servers is not None
    names = [f"p{number}" for number in range(PROCESSES)]
    # Enough that each has something to compact before it has appended anything.
    seeds = [f"seed{number}" for number in range(40)]
    async with TopicMemoryStore(log, Topics(namespace)) as store:
        await store.append(SHARED, said(*seeds))
    # All keep their tables in one folder, as engines on one machine do.
    processes = [memory_user("share", servers, namespace, name, str(tmp_path / "memory.sqlite")) for name in names]
    try:
        for told in ("ready", "checked"):
            assert [read_line(process) for process in processes] == [told] * PROCESSES
            for process in processes:
                tell(process)
        reports: list[dict[str, Any]] = [json.loads(read_line(process)) for process in processes]
        for process in processes:
            tell(process)
        views = [json.loads(read_line(process)) for process in processes]
        assert [process.wait(30) for process in processes] == [0] * PROCESSES
    finally:
        for process in processes:
            end(process)

    async with TopicMemoryStore(log, Topics(namespace)) as store:
        fresh = await store.read(SHARED)
        history = await store.history(SHARED)
    assert views == [seen(fresh)] * PROCESSES
    # No entry is lost: each is live, or superseded by a summary that is live or superseded itself.
    appended = {f"{name}-{number}-{each}" for name in names for number in range(ROUNDS) for each in range(ENTRIES)}
    kept = [entry.id for entry, _ in history if entry.role != "summary"]
    assert sorted(kept) == sorted([*seeds, *appended])
    known = {entry.id for entry, _ in history}
    assert all(by is None or by in known for _, by in history)
    # Every job that was told so has compacted once, and no other has.
    assert sorted(compaction.job_id for compaction in fresh.compactions) == sorted(
        job for report in reports for job in report["done"]
    )
    assert len(fresh.compactions) >= PROCESSES
    # They did meet: each wrote its first compaction on the version that all had read, and one alone of these holds.
    written = [json.loads(record.value or b"") for record in await read_all(settings, Topics(namespace).memory)]
    met = [each["jobId"] for each in written if each["type"] == "compaction" and each["baseVersion"] == -1]
    assert sorted(met) == [f"{name}-job-0" for name in names]
    assert fresh.compactions[0].job_id in met
    assert await void_records(log, namespace, len(known)) >= PROCESSES - 1


async def void_records(log: KafkaLog, namespace: str, valid: int) -> int:
    """How many records of the conversation count for nothing."""
    reader = log.reader()
    await reader.start()
    try:
        topic = Topics(namespace).memory
        partition = TopicPartition(topic.name, key_partition(key_of(SHARED), topic.partitions))
        return (await reader.end_offsets([partition]))[partition] - valid
    finally:
        await reader.stop()


async def test_a_process_that_is_killed_between_write_and_answer_has_compacted(
    settings: Settings, log: KafkaLog, namespace: str, tmp_path: Path
) -> None:
    servers = settings.bootstrap_servers
    assert servers is not None
    async with TopicMemoryStore(log, Topics(namespace)) as store:
        await store.append(SHARED, said("e0", "e1", "e2"))
        process = memory_user("die", servers, namespace, "job-1", str(tmp_path / "memory.sqlite"))
        try:
            assert read_line(process) == "written"
            process.send_signal(signal.SIGKILL)
            assert process.wait(20) == -signal.SIGKILL
        finally:
            end(process)
        # The next attempt of the job may even have another summary: what was written stands.
        done = await store.compact(
            SHARED, NewCompaction(job_id="job-1", base_version=-1, supersedes=["e0", "e1"], summary="of the next attempt")
        )
        assert done.summary == "of the one that was killed"
        snapshot = await store.read(SHARED)
        assert [entry.content for entry in snapshot.entries] == ["of the one that was killed", "what e2 says"]
        assert await void_records(log, namespace, valid=4) == 0


class CountingLog(KafkaLog):
    """Counts the records that its readers hand over."""

    read = 0

    def reader(self) -> Any:
        reader = super().reader()
        fetch = reader.fetch

        async def counted(**options: Any) -> Any:
            batches = await fetch(**options)
            self.read += sum(map(len, batches.values()))
            return batches

        reader.fetch = counted  # type: ignore[method-assign]
        return reader


async def test_a_restarted_process_goes_on_where_it_was_and_can_lose_its_file(
    settings: Settings, namespace: str, tmp_path: Path
) -> None:
    log = CountingLog(settings)
    options = StoreOptions(view_path=tmp_path / "views" / "memory.sqlite")
    async with TopicMemoryStore(log, Topics(namespace), options) as first:
        await first.append(SHARED, said(*(f"e{number}" for number in range(500))))
        await first.compact(
            SHARED, NewCompaction(job_id="j", base_version=-1, supersedes=[f"e{number}" for number in range(400)], summary="s")
        )
        before = await first.read(SHARED)
    async with TopicMemoryStore(log, Topics(namespace)) as other:
        await other.append(SHARED, said("later"))
    log.read = 0
    async with TopicMemoryStore(log, Topics(namespace), options) as second:
        after = await second.read(SHARED)
    # The last record that was known, by which the log is recognised, and the one that is new.
    assert log.read == 2
    assert after.entries[:-1] == before.entries
    assert after.entries[-1].id == "later"
    assert options.view_path is not None
    options.view_path.unlink()
    log.read = 0
    async with TopicMemoryStore(log, Topics(namespace), options) as third:
        assert await third.read(SHARED) == after
    assert log.read == 502
    await log.close()


async def test_a_file_of_a_topic_that_was_made_anew_is_discarded(settings: Settings, tmp_path: Path, namespace: str) -> None:
    options = StoreOptions(view_path=tmp_path / "memory.sqlite")
    log = KafkaLog(settings)
    async with TopicMemoryStore(log, Topics(namespace), options) as first:
        await first.append(SHARED, said("old0", "old1"))
    await log.delete_topics([Topics(namespace).memory.name])
    await log.close()
    again = KafkaLog(settings)
    async with TopicMemoryStore(again, Topics(namespace)) as other:
        await other.append(SHARED, said("new0", "new1", "new2"))
    async with TopicMemoryStore(again, Topics(namespace), options) as second:
        assert [entry.id for entry in (await second.read(SHARED)).entries] == ["new0", "new1", "new2"]
    await again.close()


async def test_large_entries_and_long_conversations_pass(log: KafkaLog, namespace: str) -> None:
    async with TopicMemoryStore(log, Topics(namespace)) as store:
        large = [NewEntry(role="tool", content="x" * 500_000, id=f"large{number}") for number in range(6)]
        many = [
            NewEntry(role="user", content=f"entry {number} of a long conversation", id=f"e{number}") for number in range(20_000)
        ]
        assert (await store.append(SHARED, [*large, *many])).added == 20_006
        snapshot = await store.read(SHARED)
        assert [entry.id for entry in snapshot.entries] == [entry.id for entry in [*large, *many]]
        done = await store.compact(
            SHARED,
            NewCompaction(
                job_id="j", base_version=-1, supersedes=[entry.id for entry in snapshot.entries[:-10]], summary="all of it"
            ),
        )
        assert (done.applied.superseded, done.applied.entries_after) == (19_996, 11)
    async with TopicMemoryStore(log, Topics(namespace)) as fresh:
        assert len((await fresh.read(SHARED)).entries) == 11


async def test_a_program_puts_a_conversation_in_and_looks_at_it(settings: Settings) -> None:
    conversation = json.loads(SAMPLE_TEXT)
    turns = conversation["turns"]
    async with Memory(settings) as memory:
        assert (await memory.import_conversation(SAMPLE_PATH)).added == len(turns)
        again = await memory.import_conversation(conversation)
        assert (len(again.ids), again.added) == (len(turns), 0)
        await memory.append("mara", SAMPLE, [NewEntry(role="user", content="One more thing.")])
        snapshot = await memory.read("mara", SAMPLE)
        assert [entry.content for entry in snapshot.entries] == [*(turn["content"] for turn in turns), "One more thing."]
        assert (await memory.import_conversation(SAMPLE_PATH, user_id="bob", conversation_id="copy")).added == len(turns)
    async with Memory(settings, tenant="other") as elsewhere:
        assert not (await elsewhere.read("mara", SAMPLE)).entries


async def test_the_example_of_the_documentation_runs(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, rest = DOCUMENTATION.partition("The same in Python:\n\n")
    example, _, _ = rest.partition("\n\n`snapshot.entries`")
    _, _, from_file = DOCUMENTATION.partition("A file is either one JSON object\n\n")
    conversation, _, _ = from_file.partition("\n\nor ")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trip.json").write_text(conversation)
    body = "".join(f"    {line}\n" for line in textwrap.dedent(example).splitlines())
    scope: dict[str, Any] = {}
    exec(f"async def example(settings):\n{body}", scope)
    await scope["example"](settings)
    assert capsys.readouterr().out == "user Ann Hello.\nuser None We leave at nine.\n"
