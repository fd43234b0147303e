"""A broker that goes away and comes back, for those who talk to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from headrace.broker import LocalBroker
from support import processes

Away = Callable[[LocalBroker], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def killed(broker: LocalBroker) -> AsyncIterator[None]:
    """The broker is gone; at the end it listens on the same port again."""
    await asyncio.to_thread(broker.node.kill)
    try:
        yield
    finally:
        await asyncio.to_thread(broker.node.start)


@asynccontextmanager
async def frozen(broker: LocalBroker) -> AsyncIterator[None]:
    """The broker's connections stay open, and it says nothing."""
    with processes.frozen(broker.node.pid):
        yield
