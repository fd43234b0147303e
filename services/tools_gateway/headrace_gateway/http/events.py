"""Server-sent events: a stream that lasts until its source, its reader, its credential or the gateway ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Iterable
from contextlib import AsyncExitStack, suppress
from typing import Any, Final

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from headrace import HeadraceError
from headrace_gateway.http.leaving import gone

logger = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS: Final = 15.0
"""How long nothing is sent at most: what stands between closes connections over which nothing comes."""
SEND_SECONDS: Final = 30.0
"""How long a reader may take nothing of what is sent."""
RETRY_MILLISECONDS: Final = 1_000
MEDIA_TYPE: Final = "text/event-stream"


class Streams:
    """The streams of a gateway, which all end when it stops."""

    def __init__(self) -> None:
        self.closing = asyncio.Event()

    def close(self) -> None:
        """Ends all of them, and those that would come."""
        self.closing.set()


def event(name: str, data: Any, event_id: str | None = None) -> bytes:
    """An event. Its data is one line: JSON escapes what would be another."""
    first = f"id: {event_id}\n" if event_id is not None else ""
    return f"{first}event: {name}\ndata: ".encode() + orjson.dumps(data) + b"\n\n"


def position(event_id: str) -> bytes:
    """Tells the reader where to go on from, and nothing else."""
    return f"id: {event_id}\n\n".encode()


class EventStream(Response):
    """The response that sends a stream.

    Args:
        source: its parts. It is closed at the end; a HeadraceError from it ends the stream with a word why.
        first: parts that come before those of the source.
        invalid: returns when the reader may read no more.
        held: what the stream holds on to while it lasts; it is closed at the end.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self,
        source: AsyncGenerator[bytes],
        *,
        streams: Streams,
        invalid: Awaitable[None],
        held: AsyncExitStack,
        first: Iterable[bytes] = (),
    ) -> None:
        # No proxy is to keep parts back until they are many.
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._source = source
        self._first = first
        self._streams = streams
        self._invalid = invalid
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - the signature is ASGI's
        ends: dict[asyncio.Future[Any], str | None] = {
            asyncio.ensure_future(self._streams.closing.wait()): "the gateway stops",
            asyncio.ensure_future(self._invalid): "the credential does not count any more",
            asyncio.ensure_future(gone(receive)): None,
        }
        coming: asyncio.Future[bytes] | None = None
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await _send(send, f"retry: {RETRY_MILLISECONDS}\n\n".encode() + b"".join(self._first))
            while True:
                coming = coming or asyncio.ensure_future(anext(self._source))
                waited: set[asyncio.Future[Any]] = {coming, *ends}
                done, _ = await asyncio.wait(waited, timeout=KEEP_ALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if ended := [reason for end, reason in ends.items() if end in done]:
                    if None not in ended:
                        await _send(send, _last_words(str(ended[0])))
                    break
                if coming in done:
                    part, coming = coming, None
                    await _send(send, part.result())
                else:
                    await _send(send, b": nothing new\n\n")
        except StopAsyncIteration:
            pass
        except HeadraceError as error:
            with suppress(TimeoutError):
                await _send(send, _last_words(str(error)))
        except TimeoutError:
            # There is no way to tell them: the server cuts the connection when the response is not ended.
            logger.info("A reader of events took nothing for %g s, and is cut off.", SEND_SECONDS)
            return
        finally:
            await self._close(coming, ends)
        with suppress(TimeoutError):
            async with asyncio.timeout(SEND_SECONDS):
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _close(self, coming: asyncio.Future[bytes] | None, ends: Iterable[asyncio.Future[Any]]) -> None:
        waiting = [*ends, *([] if coming is None else [coming])]
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await self._source.aclose()
        await self._held.aclose()


def _last_words(reason: str) -> bytes:
    """Why a stream ends that the reader may take up again, after a moment, from the last id."""
    return f"retry: {RETRY_MILLISECONDS}\n".encode() + event("closing", {"reason": reason[:500]})


async def _send(send: Send, body: bytes) -> None:
    async with asyncio.timeout(SEND_SECONDS):
        await send({"type": "http.response.body", "body": body, "more_body": True})
