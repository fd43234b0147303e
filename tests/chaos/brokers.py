"""The three brokers of a run, of which at most one is away at a time."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from headrace.broker import LocalBroker
from headrace.errors import LocalBrokerError

IN_SYNC_SECONDS = 60.0
POLL_SECONDS = 0.5


class Brokers:
    """A cluster whose nodes are killed, stopped and started again.

    Attributes:
        one_at_a_time: held as long as a node is away or catches up: of three copies two are needed.
    """

    def __init__(self, broker: LocalBroker) -> None:
        self._broker = broker
        self.one_at_a_time = asyncio.Lock()

    @property
    def count(self) -> int:
        return len(self._broker.cluster.nodes)

    async def away(self, number: int, seconds: float, *, killed: bool) -> LocalBrokerError | None:
        """Ends a node, by a kill or in order, and starts it again after so many seconds.

        Returns:
            What hindered its start, if it took a second one.
        """
        cluster = self._broker.cluster
        await asyncio.to_thread(cluster.kill_node if killed else cluster.stop_node, number)
        await asyncio.sleep(seconds)
        try:
            await asyncio.to_thread(cluster.start_node, number)
        except LocalBrokerError as error:
            await asyncio.to_thread(cluster.start_node, number)
            return error
        return None

    async def whole(self) -> bool:
        """Waits until every partition is in sync on all its nodes; whether that came in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + IN_SYNC_SECONDS
        while loop.time() < deadline:
            try:
                if await self._in_sync():
                    return True
            except (KafkaError, OSError, TimeoutError):
                pass
            await asyncio.sleep(POLL_SECONDS)
        return False

    async def _in_sync(self) -> bool:
        client: Any = AIOKafkaAdminClient(bootstrap_servers=self._broker.bootstrap_servers, request_timeout_ms=5000)
        await client.start()
        try:
            return all(
                set(partition["isr"]) == set(partition["replicas"])
                for topic in await client.describe_topics()
                for partition in topic["partitions"]
            )
        finally:
            await client.close()
