"""Notices that whoever asked has left, or may be told nothing more, while what they asked for is still to come."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from headrace_gateway.access import Principal
from headrace_gateway.gateway import Gateway

ResultT = TypeVar("ResultT")


async def gone(receive: Receive) -> None:
    """Returns when the client has left, whose request was read to its end. Being cancelled is safe."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def while_there(work: Coroutine[Any, Any, ResultT], request: Request, *, gateway: Gateway, principal: Principal) -> ResultT:
    """What the work gives, which is given up as soon as nobody may have it any more, or nobody is there to take it.

    Raises:
        CredentialInvalid: the principal's credential does not count any more, though the work may be done.
        ClientDisconnect: the client has left.
    """
    working = asyncio.ensure_future(work)
    ends = [working, asyncio.ensure_future(gateway.until_invalid(principal)), asyncio.ensure_future(gone(request.receive))]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        gateway.access.check(principal)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for end in ends:
            end.cancel()
        await asyncio.gather(*ends, return_exceptions=True)
