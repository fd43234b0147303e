"""The way between one process and the cluster: how long it takes, and whether it is open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from headrace.errors import BrokerError, BrokerUnreachable


class Link:
    """One process' connection to the cluster.

    Args:
        latency: how many seconds the next message takes.
        connect_timeout: how many seconds a request waits for a cluster that is away, before it fails.
        reconnected: called when the way is open again.

    Attributes:
        refusal: what requests are answered with, while it is set.
    """

    def __init__(self, latency: Callable[[], float], connect_timeout: float, reconnected: Callable[[], None]) -> None:
        self.latency = latency
        self.refusal: BrokerError | None = None
        self._connect_timeout = connect_timeout
        self._reconnected = reconnected
        self._open = asyncio.Event()
        self._open.set()
        self._stranded: list[Callable[[], None]] = []

    @property
    def is_open(self) -> bool:
        return self._open.is_set()

    def cut(self) -> None:
        self._open.clear()

    def mend(self) -> None:
        self._open.set()
        stranded, self._stranded = self._stranded, []
        for deliver in stranded:
            self.carry(deliver)
        self._reconnected()

    def carry(self, deliver: Callable[[], None]) -> None:
        """Calls `deliver` when a message would have come over: later while the way is cut."""
        loop = asyncio.get_running_loop()
        if (seconds := self.latency()) > 0:
            loop.call_later(seconds, self._arrive, deliver)
        else:
            loop.call_soon(self._arrive, deliver)

    async def request(self) -> None:
        """Returns when a request is answered.

        Raises:
            BrokerError: requests are refused, or the way stays cut for longer than the connect timeout.
        """
        await asyncio.sleep(self.latency())
        if self.refusal is not None:
            raise self.refusal
        try:
            async with asyncio.timeout(self._connect_timeout):
                await self._open.wait()
        except TimeoutError:
            raise BrokerUnreachable(f"The cluster in memory: no answer within {self._connect_timeout:g} s.") from None

    def _arrive(self, deliver: Callable[[], None]) -> None:
        if self.is_open:
            deliver()
        else:
            self._stranded.append(deliver)
