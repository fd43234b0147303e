"""The store over a log in memory: what is answered, and who wins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from headrace.errors import BrokerUnreachable, ConversationInvalid, MemoryConflict, MemoryStoreError
from headrace.memory import StoreOptions, TopicMemoryStore, follower
from headrace.ports import MemorySnapshot, NewCompaction, NewEntry, NewRecord
from headrace.testing import InMemoryLog
from support.stores import HERE, PARTITION, TOPICS, compaction, ids, records, said


@pytest.fixture
def log() -> InMemoryLog:
    return InMemoryLog()


@pytest.fixture
async def store(log: InMemoryLog) -> AsyncIterator[TopicMemoryStore]:
    async with TopicMemoryStore(log, TOPICS) as started:
        yield started


async def test_what_is_appended_is_read_in_its_order(store: TopicMemoryStore) -> None:
    appended = await store.append(HERE, said("one", "two", "three"))
    assert (appended.ids, appended.added) == (("one", "two", "three"), 3)
    snapshot = await store.read(HERE)
    assert [entry.content for entry in snapshot.entries] == ["one", "two", "three"]
    assert (snapshot.version, snapshot.tokens) == (-1, 4)


async def test_the_first_use_connects_also_when_several_come_at_once(log: InMemoryLog) -> None:
    store = TopicMemoryStore(log, TOPICS)
    results = await asyncio.gather(store.append(HERE, said("a")), store.read(HERE), store.find_compaction(HERE, "j"))
    assert results[0].added == 1
    assert ids(await store.read(HERE)) == ["a"]
    await store.stop()


async def test_a_store_that_was_never_used_can_be_stopped(log: InMemoryLog) -> None:
    await TopicMemoryStore(log, TOPICS).stop()
    assert not log.cluster.topic_names()


@pytest.mark.parametrize("used_before", [True, False])
async def test_a_store_that_was_stopped_stays_so(log: InMemoryLog, used_before: bool) -> None:
    store = TopicMemoryStore(log, TOPICS)
    if used_before:
        await store.append(HERE, said("a", "b"))
    await store.stop()
    change = NewCompaction(job_id="j", base_version=-1, supersedes=("a",), summary="s")
    uses: list[Callable[[], Awaitable[object]]] = [
        store.start,
        lambda: store.append(HERE, said("c")),
        lambda: store.read(HERE),
        lambda: store.history(HERE),
        lambda: store.compact(HERE, change),
        lambda: store.find_compaction(HERE, "j"),
    ]
    for use in uses:
        with pytest.raises(MemoryStoreError, match="was closed"):
            await use()
    assert len(records(log)) == 2 * used_before
    await store.stop()


async def test_what_a_first_use_opens_while_the_store_is_stopped_is_closed(tmp_path: Path) -> None:
    class SlowLog(InMemoryLog):
        asked, answer = asyncio.Event(), asyncio.Event()

        async def partition_count(self, topic: str) -> int:
            self.asked.set()
            await self.answer.wait()
            return await super().partition_count(topic)

    log = SlowLog()
    options = StoreOptions(view_path=tmp_path / "memory.sqlite")
    store = TopicMemoryStore(log, TOPICS, options)
    use = asyncio.create_task(store.read(HERE))
    await log.asked.wait()
    stop = asyncio.create_task(store.stop())
    await asyncio.sleep(0)
    log.answer.set()
    await stop
    with pytest.raises(MemoryStoreError, match="was closed"):
        await use
    # Nobody holds the tables: another store gets the very file, and not a numbered one beside it.
    async with TopicMemoryStore(log, TOPICS, options) as next_one:
        await next_one.read(HERE)
    assert files_of_tables(tmp_path) == ["memory.sqlite"]


def files_of_tables(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*.sqlite"))


async def test_a_conversation_never_heard_of_is_empty(store: TopicMemoryStore) -> None:
    assert await store.read(HERE) == MemorySnapshot(-1, (), 0, ())


async def test_where_nothing_was_said_nothing_is_waited_for(store: TopicMemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "_FETCH_SECONDS", 20.0)
    async with asyncio.timeout(10):
        assert (await store.read(HERE)).entries == ()
        await store.append(HERE, said("the first"))
        assert [entry.content for entry in (await store.read(HERE)).entries] == ["the first"]


async def test_conversations_tenants_and_users_are_kept_apart(store: TopicMemoryStore) -> None:
    await store.append(HERE, said("here"))
    for elsewhere in (HERE._replace(tenant="t2"), HERE._replace(user_id="bob"), HERE._replace(conversation_id="x/trip")):
        assert ids(await store.read(elsewhere)) == []


@pytest.mark.parametrize("character", ["\x00", "\n", "\x7f", "\ud800"])
async def test_nothing_is_added_under_a_name_with_control_characters(
    log: InMemoryLog, store: TopicMemoryStore, character: str
) -> None:
    for conversation, entries in (
        (HERE._replace(user_id=f"a{character}"), said("one")),
        (HERE._replace(conversation_id=f"a{character}"), said("one")),
        (HERE, said("one", f"two{character}")),
    ):
        with pytest.raises(ConversationInvalid, match="is wrong: it has control characters"):
            await store.append(conversation, entries)
    assert not records(log)


async def test_an_id_is_added_once_also_within_a_call(store: TopicMemoryStore) -> None:
    assert (await store.append(HERE, said("a", "b", "a"))).added == 2
    assert (await store.append(HERE, said("b", "c"))).added == 1
    assert ids(await store.read(HERE)) == ["a", "b", "c"]


async def test_a_known_id_with_other_text_or_role_is_refused_with_all_others_where_it_must_be_the_same(
    store: TopicMemoryStore, log: InMemoryLog
) -> None:
    await store.append(HERE, said("a", "b"))
    other_text = [*said("a", "new"), NewEntry(role="user", content="other", id="b")]
    other_role = [NewEntry(role="tool", content="a", id="a")]
    for entries, turn in ((other_text, "b"), (other_role, "a")):
        with pytest.raises(ConversationInvalid, match=f"Turn {turn} is in the memory already.* Nothing was added"):
            await store.append(HERE, entries, same=True)
        assert (await store.append(HERE, entries[-1:])).added == 0
    assert len(records(log)) == 2
    assert (await store.append(HERE, said("a", "b", "c"), same=True)).added == 1


async def test_other_text_that_another_process_adds_at_the_same_time_is_told(log: InMemoryLog, store: TopicMemoryStore) -> None:
    elsewhere = InMemoryLog()
    async with TopicMemoryStore(elsewhere, TOPICS) as other:
        await other.append(HERE, [NewEntry(role="user", content="uno", id="a")])
    (theirs,) = records(elsewhere)
    # What the other process writes lands after this one has read, and before its own record.
    ours = log.hold_appends(TOPICS.memory.name)
    adding = asyncio.create_task(store.append(HERE, [NewEntry(role="user", content="one", id="a")], same=True))
    await ours.caught()
    log.cluster.append(PARTITION, NewRecord(theirs.key or b"", theirs.value))
    ours.release()
    with pytest.raises(ConversationInvalid, match="Turn a"):
        await adding
    assert len(records(log)) == 2
    assert [entry.content for entry in (await store.read(HERE)).entries] == ["uno"]


async def test_of_two_that_add_one_id_the_first_in_the_log_has_added_it(log: InMemoryLog, store: TopicMemoryStore) -> None:
    async with TopicMemoryStore(log, TOPICS) as other:
        results = await asyncio.gather(*(each.append(HERE, said("a", "b")) for each in (store, other)))
        assert sum(result.added for result in results) == 2
        assert await store.read(HERE) == await other.read(HERE)
    assert len({record.key for record in records(log)}) == len(records(log))


async def test_entries_without_an_id_or_time_get_one(store: TopicMemoryStore) -> None:
    appended = await store.append(HERE, [NewEntry(role="user", content="x"), NewEntry(role="user", content="x")])
    assert appended.added == 2
    snapshot = await store.read(HERE)
    assert tuple(ids(snapshot)) == appended.ids
    assert all(entry.at.utcoffset() is not None for entry in snapshot.entries)


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        (NewEntry(role="summary", content="x"), "summary"),
        (NewEntry(role="king", content="x"), "role"),  # type: ignore[arg-type]  # on purpose
        (NewEntry(role="user", content="x", id="i" * 201), "id"),
        (NewEntry(role="user", content="x" * 600_000), "512 KB"),
        (NewEntry(role="user", content="\ud800"), "surrogate"),
        (NewEntry(role="user", content="x", at=datetime(999, 12, 31, tzinfo=UTC)), "years 1000 to 2999"),
        (NewEntry(role="user", content="x", at=datetime(3000, 1, 1, tzinfo=UTC)), "years 1000 to 2999"),
    ],
)
async def test_an_entry_that_cannot_be_stored_is_refused_with_all_others(
    store: TopicMemoryStore, log: InMemoryLog, entry: NewEntry, what: str
) -> None:
    with pytest.raises(ConversationInvalid, match=f"Entry 2.*{what}"):
        await store.append(HERE, [*said("good"), entry])
    assert not records(log)


async def test_a_compaction_is_one_record_and_answers_what_it_did(store: TopicMemoryStore, log: InMemoryLog) -> None:
    await store.append(HERE, said("one", "two", "three"))
    done = await store.compact(HERE, compaction(await store.read(HERE), "one", "two"))
    assert len(records(log)) == 4
    assert (done.summary, done.title, done.applied.superseded, done.applied.version) == ("sum", "Trip", 2, 3)
    snapshot = await store.read(HERE)
    assert [(entry.role, entry.name, entry.content) for entry in snapshot.entries] == [
        ("summary", "Trip", "sum"),
        ("user", None, "three"),
    ]
    assert snapshot.version == 3
    assert [(entry.id, by) for entry, by in await store.history(HERE)] == [
        ("one", done.applied.id),
        ("two", done.applied.id),
        (done.applied.id, None),
        ("three", None),
    ]


async def test_the_same_job_gets_its_earlier_answer_and_writes_nothing(store: TopicMemoryStore, log: InMemoryLog) -> None:
    await store.append(HERE, said("one", "two"))
    before = await store.read(HERE)
    first = await store.compact(HERE, compaction(before, "one"))
    again = await store.compact(HERE, compaction(before, "one", "two", summary="another"))
    assert again == first
    assert len(records(log)) == 3
    assert await store.find_compaction(HERE, "job-1") == first
    assert await store.find_compaction(HERE, "job-2") is None


async def test_a_snapshot_that_is_no_longer_the_newest_is_a_conflict(store: TopicMemoryStore, log: InMemoryLog) -> None:
    await store.append(HERE, said("one", "two"))
    before = await store.read(HERE)
    await store.compact(HERE, compaction(before, "one"))
    with pytest.raises(MemoryConflict, match="compacted meanwhile"):
        await store.compact(HERE, compaction(before, "two", job="job-2"))
    assert len(records(log)) == 3


async def test_the_order_of_the_log_decides_between_two_that_write_at_once(store: TopicMemoryStore, log: InMemoryLog) -> None:
    await store.append(HERE, said("one", "two"))
    snapshot = await store.read(HERE)
    async with TopicMemoryStore(InMemoryLog(log.cluster), TOPICS) as other:
        ours = log.hold_appends(TOPICS.memory.name)
        compacting = asyncio.create_task(store.compact(HERE, compaction(snapshot, "one", "two")))
        await ours.caught()
        await other.append(HERE, said("three"))
        await other.compact(HERE, compaction(snapshot, "one", job="job-2", summary="other"))
        ours.release()
        with pytest.raises(MemoryConflict, match="came first"):
            await compacting
        assert [entry.content for entry in (await store.read(HERE)).entries] == ["other", "two", "three"]
        assert await store.read(HERE) == await other.read(HERE)


async def test_entries_that_come_while_a_summary_is_written_stay(store: TopicMemoryStore, log: InMemoryLog) -> None:
    await store.append(HERE, said("one", "two"))
    snapshot = await store.read(HERE)
    async with TopicMemoryStore(InMemoryLog(log.cluster), TOPICS) as other:
        ours = log.hold_appends(TOPICS.memory.name)
        compacting = asyncio.create_task(store.compact(HERE, compaction(snapshot, "one", "two")))
        await ours.caught()
        await other.append(HERE, said("late"))
        ours.release()
        done = await compacting
    assert [entry.content for entry in (await store.read(HERE)).entries] == ["sum", "late"]
    assert (done.applied.entries_before, done.applied.entries_after) == (3, 2)


async def test_an_answer_that_got_lost_is_given_to_the_next_attempt(log: InMemoryLog) -> None:
    async with TopicMemoryStore(log, TOPICS) as before:
        await before.append(HERE, said("one", "two"))
        snapshot = await before.read(HERE)
    async with TopicMemoryStore(log, TOPICS, StoreOptions(write_seconds=0.2)) as store:
        answer = log.hold_acknowledgements(TOPICS.memory.name)
        with pytest.raises(BrokerUnreachable, match="may land later"):
            await store.compact(HERE, compaction(snapshot, "one"))
        answer.release()
    async with TopicMemoryStore(log, TOPICS) as later:
        done = await later.compact(HERE, compaction(snapshot, "one", summary="of the second attempt"))
    assert done.summary == "sum"
    assert len(records(log)) == 3


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"supersedes": ()}, "supersedes"),
        ({"supersedes": ("one", "nobody")}, "'nobody'"),
        ({"summary": ""}, "summary"),
        ({"job_id": ""}, "job_id"),
        ({"supersedes": tuple(f"{number:0100d}" for number in range(11_000))}, "too many"),
    ],
)
async def test_a_compaction_that_makes_no_sense_is_refused(
    store: TopicMemoryStore, log: InMemoryLog, wrong: dict[str, object], what: str
) -> None:
    await store.append(HERE, said("one"))
    right: dict[str, object] = {"job_id": "j", "base_version": -1, "supersedes": ("one",), "summary": "s"}
    with pytest.raises(MemoryStoreError, match=what):
        await store.compact(HERE, NewCompaction(**{**right, **wrong}))  # type: ignore[arg-type]  # some of it on purpose
    assert len(records(log)) == 1


async def test_a_refused_append_is_told_as_it_is(store: TopicMemoryStore, log: InMemoryLog) -> None:
    log.refuse_appends(TOPICS.memory.name, BrokerUnreachable("gone"))
    with pytest.raises(BrokerUnreachable, match=r"^gone$"):
        await store.append(HERE, said("one"))
