"""The same request is the same job: what a client answers, writes and refuses when it is asked again with the same key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import ArgumentsInvalid, Client, EnqueueTimeout, IdempotencyConflict, WorkerDefinition, load_settings
from headrace.codec import encode
from headrace.core.records import definition_key
from headrace.core.topics import Topics
from headrace.idempotency import ChildIds, digest_of, digest_of_sent, id_of_key
from headrace.ports import NewRecord, TopicPartition
from headrace.settings import Settings
from headrace.testing import InMemoryCluster, InMemoryLog, StoredRecord
from support.log import eventually

DIGEST = WorkerDefinition(name="digest", description="Sends a digest.", category="test")
TIDY = WorkerDefinition(name="tidy", description="Tidies.", category="test", order_by=["folder"])


class Desk:
    """Clients of one cluster, and what stands in its queues."""

    def __init__(self, folder: Path) -> None:
        self.cluster = InMemoryCluster(now=lambda: self.now)
        self.settings: Settings = load_settings(bootstrap_servers="memory:9092", data_directory=folder)
        self.now = 1_780_000_000_000

    def client(self, **options: Any) -> Client:
        client = Client(self.settings, log=InMemoryLog(self.cluster), now=lambda: self.now, **options)
        for definition in (DIGEST, TIDY):
            client.define(definition)
        return client

    def records(self, worker: str = "digest") -> list[StoredRecord]:
        return list(self.cluster.topic_records(Topics(self.settings.namespace).jobs_name(worker)))

    def ids(self, worker: str = "digest") -> list[str]:
        return [orjson.loads(record.value or b"")["id"] for record in self.records(worker)]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
async def client(desk: Desk) -> AsyncIterator[Client]:
    async with desk.client() as made:
        for definition in (DIGEST, TIDY):
            record = NewRecord(definition_key(definition.name), encode(definition))
            desk.cluster.append(TopicPartition(Topics(desk.settings.namespace).workers.name, 0), record)
        yield made


async def test_the_id_follows_from_tenant_worker_ordering_key_and_key(desk: Desk, client: Client) -> None:
    first = await client.enqueue("digest", {"to": "ann"}, idempotency_key="k")
    assert first.id == id_of_key("default", "digest", None, "k")
    assert first.idempotency_key == "k"
    others = [
        await client.enqueue("digest", {"to": "ann"}, idempotency_key="other"),
        await client.enqueue("digest", {"to": "ann"}, idempotency_key="k", tenant="acme"),
        await client.enqueue("digest", {"to": "ann"}, idempotency_key="k", ordering_key="ann"),
        await client.enqueue("tidy", {"folder": "ann"}, idempotency_key="k"),
        await client.enqueue("tidy", {"folder": "bob"}, idempotency_key="k"),
    ]
    assert len({first.id, *(each.id for each in others)}) == 6
    assert len(desk.records()) == 4


async def test_a_repeated_call_gets_the_same_job_and_writes_nothing(desk: Desk, client: Client) -> None:
    first = await client.enqueue("digest", {"to": "ann", "n": 1}, idempotency_key="k")
    again = await client.enqueue("digest", {"n": 1, "to": "ann"}, idempotency_key="k")
    assert (again.id, again.source, again.created_at) == (first.id, first.source, first.created_at)
    assert desk.ids() == [first.id]


async def test_without_a_key_every_call_is_another_job(desk: Desk, client: Client) -> None:
    jobs = [await client.enqueue("digest", {"to": "ann"}) for _ in range(2)]
    assert jobs[0].id != jobs[1].id
    assert len(desk.records()) == 2


async def test_the_same_key_with_other_arguments_is_refused(desk: Desk, client: Client) -> None:
    first = await client.enqueue("digest", {"to": "ann"}, idempotency_key="k")
    with pytest.raises(IdempotencyConflict, match=f"(?s)'k' belongs to job {first.id}.*other arguments.*another key"):
        await client.enqueue("digest", {"to": "bob"}, idempotency_key="k")
    assert desk.ids() == [first.id]


async def test_many_jobs_with_keys_are_each_accepted_once_and_the_call_can_be_repeated(desk: Desk, client: Client) -> None:
    args, keys = [{"n": number} for number in (1, 2, 3, 1)], ["a", "b", None, "a"]
    first = await client.enqueue_many("digest", args, idempotency_keys=keys)
    assert [job.idempotency_key for job in first] == keys
    assert first[0].id == first[3].id == id_of_key("default", "digest", None, "a")
    assert [job.args for job in first] == args
    assert desk.ids() and sorted(desk.ids()) == sorted({job.id for job in first}), "a request that is made twice is written once"
    again = await client.enqueue_many("digest", [*args, {"n": 5}], idempotency_keys=["a", "b", "c", "a", "e"])
    assert [job.source for job in again][:2] == [job.source for job in first][:2]
    assert len(desk.ids()) == 5, "the third had no key, and the last is new"
    assert [job.id for job in await client.enqueue_many("digest", [{"n": 2}], idempotency_keys=["b"])] == [first[1].id]
    assert len(desk.ids()) == 5
    one = await client.enqueue("digest", {"n": 1}, idempotency_key="a")
    assert one.source == first[0].source, "one alone is the same job, too"


async def test_keys_of_many_jobs_that_contradict_themselves_or_others_write_nothing(desk: Desk, client: Client) -> None:
    first = await client.enqueue("digest", {"n": 1}, idempotency_key="a")
    for args, keys in (([{"n": 2}, {"n": 3}], ["b", "b"]), ([{"n": 9}, {"n": 2}], ["c", "a"])):
        with pytest.raises(IdempotencyConflict, match="other arguments"):
            await client.enqueue_many("digest", args, idempotency_keys=keys)
    with pytest.raises(ArgumentsInvalid, match="2 idempotency keys for 1 jobs: give one for each, or None"):
        await client.enqueue_many("digest", [{"n": 1}], idempotency_keys=["a", "b"])
    assert desk.ids() == [first.id]
    assert await client.enqueue_many("digest", [], idempotency_keys=[]) == []


async def test_a_client_whose_view_is_open_knows_what_others_accepted(desk: Desk, client: Client) -> None:
    first = await client.enqueue("digest", {"to": "ann"}, idempotency_key="k")
    async with desk.client(view=True) as other:
        await eventually(lambda: other.readiness().ready, "a view that has caught up")
        assert await other.get_job(first.id) is not None
        desk.now += 10 * 3_600_000  # the window is long over, and the view knows it still
        again = await other.enqueue("digest", {"to": "ann"}, idempotency_key="k")
        assert (again.id, again.source) == (first.id, first.source)
        with pytest.raises(IdempotencyConflict):
            await other.enqueue("digest", {"to": "bob"}, idempotency_key="k")
    assert desk.ids() == [first.id]


async def test_a_client_that_knows_nothing_writes_and_leaves_it_to_the_holder(desk: Desk, client: Client) -> None:
    first = await client.enqueue("digest", {"to": "ann"}, idempotency_key="k")
    async with desk.client() as other:
        again = await other.enqueue("digest", {"to": "ann"}, idempotency_key="k")
    assert again.id == first.id
    assert desk.ids() == [first.id, first.id]
    assert len({record.partition for record in desk.records()}) == 1


async def test_it_is_remembered_for_the_window(desk: Desk, client: Client) -> None:
    first = await client.enqueue("digest", {"to": "ann"}, idempotency_key="k")
    desk.now += 3_600_000
    await client.enqueue("digest", {"to": "ann"}, idempotency_key="k")
    assert len(desk.records()) == 1
    desk.now += 1
    assert (await client.enqueue("digest", {"to": "bob"}, idempotency_key="k")).id == first.id
    assert len(desk.records()) == 2


async def test_after_a_timeout_the_call_is_repeated_with_the_same_key(desk: Desk, client: Client) -> None:
    topic = Topics(desk.settings.namespace).jobs_name("digest")
    await client.enqueue("digest", {})
    desk.cluster.lose_acknowledgements(topic)
    with pytest.raises(EnqueueTimeout, match="repeat the call only with the same idempotency_key") as lost:
        await client.enqueue("digest", {"to": "ann"}, idempotency_key="k")
    assert lost.value.may_be_accepted
    again = await client.enqueue("digest", {"to": "ann"}, idempotency_key="k")
    assert again.id == lost.value.job_id
    assert desk.ids().count(again.id) == 2


@pytest.mark.parametrize("key", ["", "k" * 201])
async def test_a_key_is_a_short_text(desk: Desk, client: Client, key: str) -> None:
    with pytest.raises(ArgumentsInvalid, match="idempotencyKey"):
        await client.enqueue("digest", {}, idempotency_key=key)
    assert desk.records() == []


leaves = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text("abc")
)
arguments = st.dictionaries(st.text("abc", max_size=3), leaves | st.lists(leaves, max_size=3), max_size=4)


@given(arguments, st.randoms())
def test_a_digest_is_of_what_goes_over_the_wire(args: dict[str, Any], random: Any) -> None:
    names = list(args)
    random.shuffle(names)
    shuffled = {name: args[name] for name in names}
    assert digest_of_sent(args) == digest_of_sent(shuffled) == digest_of(orjson.loads(orjson.dumps(args)))
    assert digest_of_sent({**args, "more than before": 1}) != digest_of_sent(args)


Asked = tuple[str, int]
asked = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 1)), max_size=8)


@given(asked, st.randoms())
def test_attempts_that_enqueue_the_same_in_any_order_enqueue_the_same_jobs(children: list[Asked], random: Any) -> None:
    shuffled = random.sample(children, len(children))
    attempts = [
        [ids.take(worker, None, {"n": n}).id for worker, n in order]
        for ids, order in ((ChildIds("parent"), children), (ChildIds("parent"), shuffled))
    ]
    assert sorted(attempts[0]) == sorted(attempts[1])
    assert len(set(attempts[0])) == len(children)
    assert not set(attempts[0]) & {ChildIds("another").take(worker, None, {"n": n}).id for worker, n in children}


def test_a_child_that_may_not_be_accepted_is_tried_again_as_the_same_job() -> None:
    ids = ChildIds("parent")
    first, second = (ids.take("a", "key", {}) for _ in range(2))
    ids.give_back(first)
    assert ids.take("a", "key", {}) == first
    assert ids.take("a", "key", {}).number == second.number + 1
