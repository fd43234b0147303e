"""Reads server-sent events, as the standard says it: for tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

PATIENCE = 20.0


@dataclass(frozen=True)
class Event:
    """An event as a reader gets it."""

    name: str
    data: Any


class EventReader:
    """The events of a stream.

    Attributes:
        last_id: what `Last-Event-ID` would be now.
        retry: milliseconds after which to come again, as the stream said last.
        comments: how many there were.
    """

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()
        self.response = response
        self.last_id = ""
        self.retry: int | None = None
        self.comments = 0
        self.events: list[Event] = []

    async def next(self) -> Event:
        """The next event. Raises StopAsyncIteration at the end of the stream."""
        name, data = "message", []
        async with asyncio.timeout(PATIENCE):
            while True:
                line = await anext(self._lines)
                field, _, value = line.partition(":")
                value = value.removeprefix(" ")
                match field:
                    case "" if line:
                        self.comments += 1
                    case "id":
                        self.last_id = value
                    case "retry":
                        self.retry = int(value)
                    case "event":
                        name = value
                    case "data":
                        data.append(value)
                    case "" if data:
                        self.events.append(Event(name, orjson.loads("\n".join(data))))
                        return self.events[-1]
                    case _:
                        name = "message"

    async def job(self) -> tuple[str, str]:
        """Id and status of the job of the next event."""
        found = await self.next()
        assert found.name == "job", found
        return found.data["id"], found.data["status"]


@contextlib.asynccontextmanager
async def event_stream(
    client: httpx.AsyncClient, path: str, last_id: str | None = None, **options: Any
) -> AsyncIterator[EventReader]:
    """A stream that was opened."""
    headers = {**options.pop("headers", {}), **({} if last_id is None else {"Last-Event-ID": last_id})}
    async with client.stream("GET", path, headers=headers, **options) as response:
        if response.status_code != 200:
            await response.aread()
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        yield EventReader(response)
