"""A failed job is done anew as another job, once, with what it had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace import ArgumentsInvalid, Client, EnqueueTimeout, Job, JobNotRetriable, JobUnknown
from headrace.ports import TopicPartition
from support.letters import DEFINITION, QUEUE, LetterBox, letter_settings, letters_of

LARGE = {"to": ["ann"], "text": "x" * 40_000}


@pytest.fixture
def box() -> LetterBox:
    return LetterBox()


def fail_job(box: LetterBox, job_id: str = "job-1", previous: int = -1, **fields: Any) -> int:
    """A job that was accepted, ran and failed; the epoch of its writer."""
    box.engines.enqueue(job_id, **fields)
    epoch = box.engines.claim("one", previous)
    box.engines.run(job_id, epoch)
    box.engines.fail(job_id)
    return epoch


def fail_again(box: LetterBox, job: Job, partition: int, previous: int = -1) -> int:
    """The engine of a partition runs the job that a client has enqueued, and it fails."""
    [record] = [each for each in box.cluster.topic_records(QUEUE) if each.key == job.id.encode()]
    assert record.partition == partition
    source = {"topic": QUEUE, "partition": record.partition, "offset": record.offset}
    raw = orjson.loads(record.value or b"")
    snapshot = {"status": "queued", "attempt": 0, "sequence": 0, "epoch": -1, "attempts": [], "source": source}
    box.engines.snapshots[job.id] = {**raw, **snapshot, "updatedAt": raw["createdAt"]}
    epoch = box.engines.claim("one", previous, partition)
    box.engines.run(job.id, epoch)
    box.engines.fail(job.id)
    return epoch


async def test_the_new_job_has_what_the_old_one_had_and_is_made_once(box: LetterBox, tmp_path: Path) -> None:
    fail_job(box, tenant="acme", orderingKey="k", idempotencyKey="i")
    async with Client(letter_settings(tmp_path), log=box) as client:
        again = await client.retry_job("job-1", tenant="acme")
        assert (again.status, again.retry_of, again.args) == ("queued", "job-1", {"to": ["ann"]})
        assert (await client.retry_job("job-1", tenant="acme")).id == again.id
    async with Client(letter_settings(tmp_path / "elsewhere"), log=box) as other:
        assert (await other.retry_job("job-1", tenant="acme")).id == again.id
    _, record = box.queued()
    assert (record["id"], record["retryOf"], record["orderingKey"], record["tenant"]) == (again.id, "job-1", "k", "acme")
    assert record["ctx"] == {"userId": "ann", "conversationId": "trip"}
    assert "idempotencyKey" not in record


async def test_a_policy_and_a_time_limit_of_its_own_are_those_of_the_new_job_too(box: LetterBox, tmp_path: Path) -> None:
    retry = {"maxAttempts": 9, "initial": 5.0, "giveUpOn": ["KeyError"]}
    fail_job(box, retry=retry, attemptTimeout=0.5)
    async with Client(letter_settings(tmp_path), log=box) as client:
        again = await client.retry_job("job-1")
    _, record = box.queued()
    assert again.retry is not None and again.retry.max_attempts == 9
    assert (record["retry"] | retry, record["attemptTimeout"]) == (record["retry"], 0.5)


async def test_a_retry_that_failed_is_retried_in_turn(box: LetterBox, tmp_path: Path) -> None:
    fail_job(box)
    async with Client(letter_settings(tmp_path), log=box) as client:
        second = await client.retry_job("job-1")
        assert second.source is not None
        previous = 0 if second.source.partition == 0 else -1
        fail_again(box, second, second.source.partition, previous)
        third = await client.retry_job("job-1")
        assert (third.retry_of, third.status) == (second.id, "queued")
        assert (await client.retry_job(second.id)).id == third.id
    assert len(box.queued()) == 3


async def test_only_a_failed_job_of_the_tenant_is_retried(box: LetterBox, tmp_path: Path) -> None:
    epoch = fail_job(box, "failed")
    for job_id in ("queued", "running", "completed"):
        box.engines.enqueue(job_id)
    for job_id in ("running", "completed"):
        box.engines.run(job_id, epoch)
    box.engines.complete("completed")
    async with Client(letter_settings(tmp_path), log=box) as client:
        for job_id in ("queued", "running", "completed"):
            with pytest.raises(JobNotRetriable, match=f"Job {job_id} has not failed: it is {job_id}"):
                await client.retry_job(job_id)
        with pytest.raises(JobUnknown, match="'nothing'"):
            await client.retry_job("nothing")
        with pytest.raises(JobUnknown):
            await client.retry_job("failed", tenant="acme")
    assert len(box.queued()) == 4


async def test_arguments_that_snapshots_do_not_repeat_are_read_from_the_record(box: LetterBox, tmp_path: Path) -> None:
    fail_job(box, args=LARGE)
    async with Client(letter_settings(tmp_path), log=box) as client:
        again = await client.retry_job("job-1")
    assert again.args == LARGE
    assert [record["args"] for record in box.queued()] == [LARGE, LARGE]


async def test_a_job_whose_arguments_are_gone_is_not_retried_without_them(box: LetterBox, tmp_path: Path) -> None:
    fail_job(box, args=LARGE)
    box.cluster.delete_records(TopicPartition(QUEUE, 0), 1)
    box.engines.enqueue("another")
    async with Client(letter_settings(tmp_path), log=box) as client:
        with pytest.raises(JobNotRetriable, match="no longer in the log"):
            await client.retry_job("job-1")
    assert [record["id"] for record in box.queued()] == ["another"]


async def test_the_arguments_of_another_job_at_the_same_place_are_not_taken(box: LetterBox, tmp_path: Path) -> None:
    fail_job(box, args=LARGE)
    box.cluster.delete_topics([QUEUE])
    box.publish(DEFINITION)
    box.engines.enqueue("stranger", args={"to": ["eve"]})
    async with Client(letter_settings(tmp_path), log=box) as client:
        with pytest.raises(JobNotRetriable, match="no longer in the log"):
            await client.retry_job("job-1")


async def test_a_job_that_could_not_be_read_is_among_the_dead_letters(box: LetterBox, tmp_path: Path) -> None:
    box.engines.enqueue("job-1", args={})
    epoch = box.engines.claim("one", -1)
    box.engines.run("job-1", epoch)
    box.engines.fail("job-1", type="undecodable")
    async with Client(letter_settings(tmp_path), log=box) as client:
        with pytest.raises(JobNotRetriable, match="headrace dead-letters show job-1"):
            await client.retry_job("job-1")
    assert len(box.queued()) == 1


async def test_a_retry_and_a_redrive_of_one_job_make_one(box: LetterBox, tmp_path: Path) -> None:
    fail_job(box, "job-1")
    box.bury_job("job-1", offset=0, queue_partition=0)
    async with Client(letter_settings(tmp_path), log=box) as client:
        again = await client.retry_job("job-1")
        [outcome] = await client.redrive(await letters_of(client))
    assert (outcome.outcome, outcome.job_id) == ("already_redriven", again.id)
    assert len(box.queued()) == 2


async def test_arguments_that_the_worker_takes_no_more_are_refused(box: LetterBox, tmp_path: Path) -> None:
    fail_job(box, args={"from": "ann"})
    async with Client(letter_settings(tmp_path), log=box) as client:
        with pytest.raises(ArgumentsInvalid, match="'to' is a required property"):
            await client.retry_job("job-1")
    assert len(box.queued()) == 1


async def test_a_retry_whose_acknowledgement_was_lost_can_be_repeated(box: LetterBox, tmp_path: Path) -> None:
    fail_job(box)
    held = box.cluster.hold_acknowledgements(QUEUE)
    async with Client(letter_settings(tmp_path), log=box) as client:
        with pytest.raises(EnqueueTimeout) as late:
            await client.retry_job("job-1", timeout=0.2)
        held.release()
        assert (await client.retry_job("job-1")).id == late.value.job_id
    assert len(box.queued()) == 2
