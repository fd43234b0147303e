"""The way between one process and the cluster: how long it takes, and whether it is open."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Mapping
from typing import TypeVar

from headrace.errors import BrokerError, BrokerUnreachable
from headrace.ports import TopicPartition

AnswerT = TypeVar("AnswerT")


class Link:
    """One process' connection to the cluster. What arrives at either end goes on in the context of that end.

    Args:
        latency: how many seconds the next message takes.
        connect_timeout: how many seconds a request waits for a cluster that is away, before it fails.
        reconnected: called when the way is open again.
        there: the context of the cluster; the link is made in that of the process.

    Attributes:
        refusal: what requests are answered with, while it is set.
        horizon: where the reading ends, by partition, while it is set: what stands behind it is in no answer yet.
    """

    def __init__(
        self,
        latency: Callable[[], float],
        connect_timeout: float,
        reconnected: Callable[[], None],
        there: contextvars.Context,
    ) -> None:
        self.latency = latency
        self.refusal: BrokerError | None = None
        self.horizon: Mapping[TopicPartition, int] | None = None
        self._connect_timeout = connect_timeout
        self._reconnected = reconnected
        self._there = there
        self._here = contextvars.copy_context()
        self._open = asyncio.Event()
        self._open.set()
        self._stranded: list[tuple[Callable[[], None], contextvars.Context]] = []

    @property
    def is_open(self) -> bool:
        return self._open.is_set()

    def cut(self) -> None:
        self._open.clear()

    def mend(self) -> None:
        self._open.set()
        stranded, self._stranded = self._stranded, []
        for deliver, context in stranded:
            self._carry(deliver, context)
        self._reconnected()

    def send(self, deliver: Callable[[], None]) -> None:
        """Calls `deliver` when a message would have come to the cluster: later while the way is cut."""
        self._carry(deliver, self._there)

    def answer(self, deliver: Callable[[], None]) -> None:
        """Calls `deliver` when a message would have come to the process."""
        self._carry(deliver, self._here)

    async def request(self, work: Callable[[], AnswerT]) -> AnswerT:
        """Asks the cluster, which does the work when the request comes to it; returns its answer when that comes back.

        Raises:
            BrokerError: requests are refused, or the way stays cut for longer than the connect timeout.
            HeadraceError, ValueError: whatever the work raises.
        """
        answered: asyncio.Future[AnswerT] = asyncio.get_running_loop().create_future()
        self.send(lambda: self._work(work, answered))
        try:
            async with asyncio.timeout(self._connect_timeout):
                return await answered
        except TimeoutError:
            raise BrokerUnreachable(f"The cluster in memory: no answer within {self._connect_timeout:g} s.") from None

    def _work(self, work: Callable[[], AnswerT], answered: asyncio.Future[AnswerT]) -> None:
        try:
            if self.refusal is not None:
                raise self.refusal
            found = work()
        except Exception as error:
            failure = error
            self.answer(lambda: None if answered.done() else answered.set_exception(failure))
        else:
            self.answer(lambda: None if answered.done() else answered.set_result(found))

    def _carry(self, deliver: Callable[[], None], context: contextvars.Context) -> None:
        loop = asyncio.get_running_loop()
        if (seconds := self.latency()) > 0:
            # Under way it is nobody's: it comes over whatever becomes of the process.
            loop.call_later(seconds, self._come_over, deliver, context, context=self._there)
        else:
            loop.call_soon(self._arrive, deliver, context, context=context)

    def _come_over(self, deliver: Callable[[], None], context: contextvars.Context) -> None:
        asyncio.get_running_loop().call_soon(self._arrive, deliver, context, context=context)

    def _arrive(self, deliver: Callable[[], None], context: contextvars.Context) -> None:
        if self.is_open:
            deliver()
        else:
            self._stranded.append((deliver, context))
