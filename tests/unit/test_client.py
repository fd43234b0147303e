"""A client over a cluster in memory: what it answers when it could not read everything."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace import BrokerUnreachable, Client, WorkerDefinition, load_settings
from headrace import client as client_module
from headrace.codec import encode
from headrace.core.records import definition_key
from headrace.core.topics import JOB_STATE_PARTITIONS, Topics
from headrace.ports import NewRecord, TopicPartition
from headrace.testing import InMemoryCluster, InMemoryLog

DEFINITION = WorkerDefinition(name="digest", description="Sends a digest.", category="test")


async def test_a_list_is_never_half_of_the_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = InMemoryCluster()
    settings = load_settings(bootstrap_servers="memory:9092", data_directory=tmp_path)
    topics = Topics(settings.namespace)
    partitions = [TopicPartition(topics.job_state.name, number) for number in range(JOB_STATE_PARTITIONS)]
    async with Client(settings, log=InMemoryLog(cluster)) as client:
        definition = NewRecord(definition_key(DEFINITION.name), encode(DEFINITION))
        cluster.append(TopicPartition(topics.workers.name, 0), definition)
        job = await client.enqueue(DEFINITION.name, {})
        cluster.append(partitions[0], NewRecord(b"gone", None))
        cluster.withhold(*partitions)
        monkeypatch.setattr(client_module, "_CATCH_UP_SECONDS", 0.3)
        for _ in range(2):
            with pytest.raises(BrokerUnreachable, match=r"could not be read within 0.3 s \(1 records are left\)"):
                await client.list_jobs()
        with pytest.raises(BrokerUnreachable, match="could not be read"):
            await client.get_job(job.id)
        cluster.give_out()
        monkeypatch.setattr(client_module, "_CATCH_UP_SECONDS", 20.0)
        assert [each.id for each in (await client.list_jobs()).jobs] == [job.id]
