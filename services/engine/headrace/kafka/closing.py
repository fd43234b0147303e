"""Ending aiokafka's clients within a time.

Left to themselves they wait: a producer until its batches are acknowledged, which with idempotence means for ever while the
brokers are away; a group member until a rebalance is over. A stop that is cut short, in turn, leaves tasks and sockets behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

_FORCED_CLOSE_SECONDS = 1.0

# Where aiokafka's clients keep the objects that own background tasks.
_PARTS = ("_sender", "_message_accumulator", "_fetcher", "_coordinator", "_client", "client")


async def close_client(client: Any, *, timeout: float) -> None:
    """Stop a producer, consumer or admin client; what has not ended after `timeout` seconds is cut off.

    Returns at most a second later than that. Never raises for what the brokers do, or do not do.
    """
    stop = client.close if hasattr(client, "close") else client.stop
    # A task of its own: some paths of aiokafka's stop end in a CancelledError that was meant for one of its own tasks.
    stopping = asyncio.ensure_future(stop())
    try:
        if timeout > 0:
            await asyncio.wait({stopping}, timeout=timeout)
    finally:
        clean = stopping.done() and not stopping.cancelled() and stopping.exception() is None
        if not clean:
            await _cut_off(client, stopping)


async def _cut_off(client: Any, stopping: asyncio.Future[None]) -> None:
    client._closed = True
    parts = [client, *(part for name in _PARTS if (part := getattr(client, name, None)) is not None)]
    stopping.cancel()
    # Twice: a sender that is cancelled once goes on to wait for its requests.
    for _ in range(2):
        tasks = {stopping, *_tasks_of(parts)}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_FORCED_CLOSE_SECONDS / 2)
    for task in (stopping, *tasks):
        if task.done() and not task.cancelled():
            task.exception()  # looked at, so that asyncio does not report it as lost
    network = getattr(client, "_client", None) or getattr(client, "client", None)
    if network is not None:
        for connection in list(network._conns.values()):
            connection.close()


def _tasks_of(owners: Iterable[object]) -> set[asyncio.Task[Any]]:
    """The unfinished tasks that run a method of one of the objects. aiokafka keeps some of them in local variables only."""
    found = set()
    for task in asyncio.all_tasks():
        frame = getattr(task.get_coro(), "cr_frame", None)
        if frame is not None and any(frame.f_locals.get("self") is owner for owner in owners):
            found.add(task)
    return found
