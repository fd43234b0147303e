"""Anybody may ask for a cancellation, or for a pause, and is told what there is nothing to ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace import BrokerError, Client, JobNotCancellable, JobUnknown, WorkerUnknown
from headrace.models import CancelRequest
from headrace.ports import TopicPartition
from headrace.testing import InMemoryLog
from support import leases
from support.letters import DEFINITION, QUEUE, LetterBox, letter_settings
from support.log import eventually
from support.memory_engines import Bench, GatedWorker
from support.requests import standing
from support.written_jobs import TOPICS

CONTROL = TopicPartition(TOPICS.control.name, 0)


@pytest.fixture
def box() -> LetterBox:
    return LetterBox()


def asked(box: LetterBox) -> list[CancelRequest]:
    """What was asked for, in order."""
    return [CancelRequest.model_validate_json(record.value or b"") for record in box.cluster.records(CONTROL)]


async def test_a_request_says_which_job_is_meant_and_where_its_record_stands(box: LetterBox, tmp_path: Path) -> None:
    box.engines.enqueue("waiting", tenant="acme")
    box.engines.enqueue("running")
    box.engines.run("running", box.engines.claim("one", -1))
    async with Client(letter_settings(tmp_path), log=box) as client:
        job = await client.cancel_job("waiting", tenant="acme")
        assert (job.id, job.status) == ("waiting", "queued"), "nobody runs it yet, and so nobody has ended it"
        assert (await client.cancel_job("running", wait=0.1)).status == "running"
        assert (await client.cancel_job("running")).status == "running"
    first, *others = asked(box)
    assert (first.tenant, first.job_id, first.worker_name) == ("acme", "waiting", DEFINITION.name)
    assert (first.source.topic, first.source.partition, first.source.offset) == (QUEUE, 0, 0)
    assert [request.job_id for request in others] == ["running", "running"]
    assert [record.key for record in box.cluster.records(CONTROL)] == [b"job/acme/waiting", *[b"job/default/running"] * 2]


async def test_a_job_that_has_ended_or_is_another_tenant_s_is_not_cancelled(box: LetterBox, tmp_path: Path) -> None:
    epoch = box.engines.claim("one", -1)
    for job_id in ("completed", "failed", "foreign"):
        box.engines.enqueue(job_id, tenant="acme" if job_id == "foreign" else "default")
    for job_id in ("completed", "failed"):
        box.engines.run(job_id, epoch)
    box.engines.complete("completed")
    box.engines.fail("failed")
    async with Client(letter_settings(tmp_path), log=box) as client:
        for job_id in ("completed", "failed"):
            with pytest.raises(JobNotCancellable, match=f"Job {job_id} has ended: it is {job_id}"):
                await client.cancel_job(job_id)
        for job_id in ("foreign", "nothing"):
            with pytest.raises(JobUnknown, match=job_id):
                await client.cancel_job(job_id)
    assert asked(box) == []


async def test_a_request_that_is_not_acknowledged_can_be_repeated(box: LetterBox, tmp_path: Path) -> None:
    box.engines.enqueue("job-1")
    async with Client(letter_settings(tmp_path), log=box) as client:
        held = box.cluster.hold_acknowledgements(CONTROL.topic)
        with pytest.raises(BrokerError):
            await client.cancel_job("job-1", timeout=0.2)
        held.release()
        await client.cancel_job("job-1")
    assert {request.job_id for request in asked(box)} == {"job-1"}


async def test_a_pause_is_seen_at_once_by_who_asked_and_by_others(box: LetterBox, tmp_path: Path) -> None:
    box.publish(DEFINITION)
    async with Client(letter_settings(tmp_path), log=box) as client:
        for _ in range(2):
            await client.pause_worker(DEFINITION.name)
            assert [worker.paused for worker in await client.list_workers()] == [True]
        async with Client(letter_settings(tmp_path / "other"), log=box) as other:
            assert [worker.paused for worker in await other.list_workers()] == [True]
            for _ in range(2):
                await client.resume_worker(DEFINITION.name)
                assert [worker.paused for worker in await client.list_workers()] == [False]
        with pytest.raises(WorkerUnknown, match="'nobody'"):
            await client.pause_worker("nobody")
        with pytest.raises(WorkerUnknown, match="'nobody'"):
            await client.resume_worker("nobody")


async def test_what_a_client_asks_an_engine_does(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    worker = GatedWorker()
    worker.close_gate("slow")
    async with (
        leases.engine(bench, worker) as engine,
        Client(bench.settings, log=InMemoryLog(bench.cluster)) as client,
    ):
        job = await client.enqueue(worker, {"name": "slow"})
        await eventually(lambda: worker.running == ["slow"], "the start")
        await client.pause_worker(worker.name)
        waiting = await client.enqueue(worker, {"name": "waiting"})
        for each in (job, waiting):
            cancelled = await client.cancel_job(each.id, wait=20)
            assert (cancelled.status, cancelled.finished_at is not None) == ("cancelled", True)
            assert (await client.cancel_job(each.id)).status == "cancelled"
        await client.resume_worker(worker.name)
        quick = await client.enqueue(worker, {"name": "quick"})
        await eventually(lambda: bench.has_completed(quick.id), "the end of the next")
        assert worker.names_started() == ["slow", "quick"]
        await eventually(lambda: standing(bench) == [], "the end of the requests")
        assert [summary.paused for summary in await engine.list_workers()] == [False]
