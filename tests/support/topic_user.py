"""A process that needs topics, as engine, gateway and client do: for tests in which many start at once.

Says `ready`, waits for a line, then makes the topics of its namespace, writes to each of them, reads and joins a group.
"""

from __future__ import annotations

import asyncio
import sys

from headrace.core.topics import Topics
from headrace.kafka import KafkaLog
from headrace.ports import GroupListener, NewRecord, TopicPartition
from headrace.settings import load_settings


async def use_topics(servers: str, namespace: str) -> None:
    names = Topics(namespace)
    topics = [names.jobs("digest"), names.job_state, names.workers, names.control, names.memory, names.dead_letters]
    topics.append(names.ended_keys(3_600))
    log = KafkaLog(load_settings(bootstrap_servers=servers, namespace=namespace))
    writer, reader = log.writer(), log.reader()

    async def revoked(_: object) -> None:
        return None

    consumer = log.group_consumer(names.jobs_name("digest"), names.group("digest"), GroupListener(lambda _: None, revoked))
    await log.create_topics(topics)
    for client in (writer, reader, consumer):
        await client.start()
    for topic in topics:
        await writer.append(TopicPartition(topic.name, 0), NewRecord(b"key", b"value"), timeout=20)
    await reader.assign({TopicPartition(topic.name, 0): 0 for topic in topics})
    await reader.fetch(timeout=1)
    await consumer.fetch(timeout=0.1, maximum=1)
    await consumer.stop(timeout=5)
    await reader.stop()
    await writer.stop(timeout=5)
    await log.close()


def main() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    asyncio.run(use_topics(*sys.argv[1:]))


if __name__ == "__main__":
    main()
