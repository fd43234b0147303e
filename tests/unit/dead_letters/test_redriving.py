"""A redrive makes one new job of a letter, however often it is asked for, or says why there can be none."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace import ArgumentsInvalid, Client, DeadLetterUnusable, EnqueueTimeout, WorkerDefinition, WorkerUnknown
from headrace.core.partitions import key_partition
from headrace.ports import TopicPartition
from support.letters import LETTERS, QUEUE, LetterBox, a_record, letter_settings, letters_of
from support.written_jobs import JOB_PARTITIONS, WORKER


@pytest.fixture
def box() -> LetterBox:
    return LetterBox()


async def test_the_new_job_has_what_the_old_one_had(box: LetterBox, tmp_path: Path) -> None:
    box.bury_job("job-1", tenant="acme", orderingKey="k", idempotencyKey="i", status="failed", scheduleId="s")
    async with Client(letter_settings(tmp_path), log=box) as client:
        [outcome] = await client.redrive(await letters_of(client))
    assert (outcome.outcome, outcome.error) == ("redriven", None)
    [record] = box.queued()
    assert {name: record[name] for name in ("tenant", "workerName", "args", "ctx", "orderingKey", "retryOf")} == {
        "tenant": "acme",
        "workerName": WORKER,
        "args": {"to": ["ann"]},
        "ctx": {"userId": "ann", "own": 1},
        "orderingKey": "k",
        "retryOf": "job-1",
    }
    assert record["id"] == outcome.job_id != "job-1"
    assert not {"idempotencyKey", "scheduleId", "status"} & record.keys()
    partition = TopicPartition(QUEUE, key_partition("k", JOB_PARTITIONS))
    assert len(box.cluster.records(partition)) == 1


async def test_a_policy_and_a_time_limit_of_its_own_go_on_with_the_same_worker(box: LetterBox, tmp_path: Path) -> None:
    box.publish(
        WorkerDefinition(name="other", description="", category="test", kind="other", arguments_schema={"type": "object"})
    )
    box.bury_job("job-1", offset=1, retry={"maxAttempts": 9}, attemptTimeout=0.5)
    box.bury_job("job-2", offset=2, retry={"maxAttempts": 0}, attemptTimeout=2.0)
    async with Client(letter_settings(tmp_path), log=box) as client:
        letters = await letters_of(client)
        assert [each.outcome for each in await client.redrive(letters)] == ["redriven"] * 2
        same = sorted(box.queued(), key=lambda record: record["retryOf"])
        box.bury_job("job-3", offset=3, retry={"maxAttempts": 9}, attemptTimeout=0.5)
        [third] = [each for each in await letters_of(client) if each.job_id == "job-3"]
        assert [each.outcome for each in await client.redrive([third], worker_name="other")] == ["redriven"]
    assert [(record.get("retry"), record.get("attemptTimeout")) for record in same] == [({"maxAttempts": 9}, 0.5), (None, 2.0)]
    [elsewhere] = box.queued("other")
    assert not {"retry", "attemptTimeout"} & elsewhere.keys()


async def test_a_letter_that_is_redriven_twice_makes_one_job_and_says_so(box: LetterBox, tmp_path: Path) -> None:
    box.bury_job()
    async with Client(letter_settings(tmp_path), log=box) as client:
        letters = await letters_of(client)
        [first] = await client.redrive(letters)
        [second] = await client.redrive(letters)
    async with Client(letter_settings(tmp_path / "elsewhere"), log=box) as other:
        [third] = await other.redrive(letters)
    assert [each.outcome for each in (first, second, third)] == ["redriven", "already_redriven", "already_redriven"]
    assert first.job_id == second.job_id == third.job_id
    assert third.job is not None and (third.job.id, third.job.status) == (first.job_id, "queued")
    assert len(box.queued()) == 1


async def test_two_redrives_at_once_give_the_job_the_same_id_and_partition(box: LetterBox, tmp_path: Path) -> None:
    box.bury_job()
    async with (
        Client(letter_settings(tmp_path / "one"), log=box) as one,
        Client(letter_settings(tmp_path / "two"), log=box) as two,
    ):
        letters = await letters_of(one)
        await asyncio.gather(one.redrive(letters), two.redrive(letters))
    ids = {(record.partition, record.key) for record in box.cluster.topic_records(QUEUE)}
    assert len(ids) == 1


async def test_what_another_client_has_just_redriven_is_read_first(box: LetterBox, tmp_path: Path) -> None:
    box.bury_job()
    async with (
        Client(letter_settings(tmp_path / "one"), log=box) as one,
        Client(letter_settings(tmp_path / "two"), log=box) as two,
    ):
        letters = await letters_of(one)
        for client in (one, two):
            assert (await client.list_jobs()).jobs == []
        queue = [TopicPartition(QUEUE, number) for number in range(JOB_PARTITIONS)]
        box.cluster.withhold(*queue)
        await one.redrive(letters)
        second = asyncio.create_task(two.redrive(letters))
        # It waits for what is still on its way to it; without, it would be done long before.
        await asyncio.wait([second], timeout=0.5)
        box.cluster.give_out(*queue)
        [outcome] = await second
    assert outcome.outcome == "already_redriven"
    assert len(box.queued()) == 1


async def test_a_record_that_was_buried_twice_makes_one_job(box: LetterBox, tmp_path: Path) -> None:
    box.bury_job(offset=7)
    box.bury_job(offset=7, partition=1)
    box.bury(b"no job", offset=8)
    box.bury(b"no job", offset=8)
    async with Client(letter_settings(tmp_path), log=box) as client:
        letters = await letters_of(client)
        outcomes = await client.redrive(letters, args={"to": ["bob"]})
    told = {letter.place: outcome.outcome for letter, outcome in zip(letters, outcomes, strict=True)}
    assert sorted(told.values()) == ["already_redriven", "already_redriven", "redriven", "redriven"]
    assert told["0/1"] == "redriven" and told["0/2"] == "already_redriven"
    assert len(box.queued()) == 2


async def test_other_records_are_other_jobs_also_at_the_same_place_of_a_topic_made_anew(box: LetterBox, tmp_path: Path) -> None:
    box.bury_job("job-1", offset=7)
    box.bury_job("job-2", offset=7)
    box.bury_job("job-1", offset=8)
    box.bury(orjson.dumps({"args": {"to": ["a"]}}), offset=9)
    box.bury(orjson.dumps({"args": {"to": ["b"]}}), offset=9)
    async with Client(letter_settings(tmp_path), log=box) as client:
        outcomes = await client.redrive(await letters_of(client))
    assert [each.outcome for each in outcomes] == ["redriven"] * 5
    assert len({record["id"] for record in box.queued()}) == 5


@pytest.mark.parametrize(
    ("value", "cut", "why"),
    [
        (b"\xff nonsense", None, r"0/0 cannot be redriven: its bytes are no job \(the record is no JSON\)"),
        (None, None, "its bytes are no job"),
        (b"[1]", None, "its bytes are no job"),
        (orjson.dumps({"id": "j", "args": None}), None, "it has no arguments that can be read"),
        (b'{"id": "j", "args": {"to": [', 2_096_000, "only the beginning of its 2096000 bytes was kept"),
    ],
)
async def test_bytes_that_are_no_job_can_be_redriven_with_arguments_alone(
    box: LetterBox, tmp_path: Path, value: bytes | None, cut: int | None, why: str
) -> None:
    box.bury(value, cut=cut)
    async with Client(letter_settings(tmp_path), log=box) as client:
        letters = await letters_of(client)
        [outcome] = await client.redrive(letters)
        assert (outcome.outcome, outcome.job_id, box.queued()) == ("failed", None, [])
        with pytest.raises(DeadLetterUnusable, match=why):
            raise outcome.error or AssertionError
        [outcome] = await client.redrive(letters, worker_name=WORKER, args={"to": ["bob"]})
    assert outcome.outcome == "redriven"
    [record] = box.queued()
    assert (record["args"], record["ctx"], record["tenant"]) == ({"to": ["bob"]}, {}, "default")
    assert "retryOf" not in record


async def test_what_can_be_read_of_a_record_that_is_no_job_is_kept(box: LetterBox, tmp_path: Path) -> None:
    wrong = {**a_record("job-1", tenant="acme"), "createdAt": 5, "orderingKey": 7, "ctx": {"userId": 9}}
    box.bury(orjson.dumps(wrong), job_id="job-1")
    async with Client(letter_settings(tmp_path), log=box) as client:
        await client.redrive(await letters_of(client))
    [record] = box.queued()
    assert (record["args"], record["tenant"], record["ctx"], record["retryOf"]) == ({"to": ["ann"]}, "acme", {}, "job-1")
    assert "orderingKey" not in record


async def test_a_job_in_the_wrong_queue_goes_to_the_worker_that_it_names_or_to_the_one_given(
    box: LetterBox, tmp_path: Path
) -> None:
    box.publish(WorkerDefinition(name="other", description="", category="test", order_by=["to"]))
    for offset, name in enumerate(["other", "gone"]):
        record = a_record(f"job-{name}", workerName=name, orderingKey="k")
        box.bury(orjson.dumps(record), reason="worker_unknown", job_id=f"job-{name}", offset=offset)
    async with Client(letter_settings(tmp_path), log=box) as client:
        letters = await letters_of(client)
        good, bad = await client.redrive(letters)
        assert (good.outcome, bad.outcome) == ("redriven", "failed")
        assert isinstance(bad.error, WorkerUnknown)
        [moved] = await client.redrive(letters[1:], worker_name="other")
        assert moved.outcome == "redriven"
    # A key that was given for another worker is not this one's: its own rule decides.
    assert {job["retryOf"]: job["orderingKey"] for job in box.queued("other")} == {
        "job-other": "k",
        "job-gone": "%5B%22ann%22%5D",
    }
    assert box.queued() == []


async def test_arguments_that_still_do_not_fit_are_refused_before_anything_is_written(box: LetterBox, tmp_path: Path) -> None:
    box.bury_job("job-1", args={"to": 5})
    async with Client(letter_settings(tmp_path), log=box) as client:
        letters = await letters_of(client)
        for dry_run in (True, False):
            [outcome] = await client.redrive(letters, dry_run=dry_run)
            assert outcome.outcome == "failed" and isinstance(outcome.error, ArgumentsInvalid)
        assert box.queued() == []
        [outcome] = await client.redrive(letters, args={"to": ["ann"]})
    assert (outcome.outcome, [job["args"] for job in box.queued()]) == ("redriven", [{"to": ["ann"]}])


async def test_a_dry_run_says_what_would_become_of_each_and_writes_nothing(box: LetterBox, tmp_path: Path) -> None:
    box.bury_job("job-1", offset=1)
    box.bury_job("job-2", offset=2)
    box.bury(b"no job", offset=3)
    async with Client(letter_settings(tmp_path), log=box) as client:
        first, second, third = await letters_of(client)
        await client.redrive([first])
        outcomes = await client.redrive([first, second, third], dry_run=True)
        assert [each.outcome for each in outcomes] == ["already_redriven", "possible", "failed"]
        assert len(box.queued()) == 1
        [done] = await client.redrive([second])
    assert done.job_id == outcomes[1].job_id


async def test_a_redrive_whose_acknowledgement_was_lost_can_be_repeated(box: LetterBox, tmp_path: Path) -> None:
    box.bury_job()
    held = box.cluster.hold_acknowledgements(QUEUE)
    async with Client(letter_settings(tmp_path), log=box) as client:
        letters = await letters_of(client)
        [outcome] = await client.redrive(letters, timeout=0.2)
        assert isinstance(outcome.error, EnqueueTimeout) and outcome.error.may_be_accepted
        held.release()
        [again] = await client.redrive(letters)
    assert (outcome.outcome, again.outcome, again.job_id) == ("failed", "already_redriven", outcome.job_id)
    assert len(box.queued()) == 1


async def test_many_are_redriven_in_their_order_and_one_that_fails_costs_itself_alone(box: LetterBox, tmp_path: Path) -> None:
    for number in range(250):
        box.bury_job(f"job-{number}", offset=number, args={"to": 5 if number == 120 else [number]})
    async with Client(letter_settings(tmp_path), log=box) as client:
        outcomes = await client.redrive(await letters_of(client))
    expected: list[Any] = [("failed" if number == 120 else "redriven", f"job-{number}") for number in range(250)]
    assert [(each.outcome, each.letter.job_id) for each in outcomes] == expected
    assert len(box.queued()) == 249
    assert len(box.cluster.topic_records(LETTERS)) == 250, "letters stay"
