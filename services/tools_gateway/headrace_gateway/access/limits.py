"""How much a principal may do at a time: calls in a second, calls at once, streams at once. Counted in each gateway by itself."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from headrace_gateway.access.errors import RateLimited, TooManyInFlight
from headrace_gateway.access.principal import Principal

MOST_PRINCIPALS: Final = 10_000
"""Of so many principals what they do is remembered, and of all who do something just now."""

_SWEPT_AT_ONCE = 8
_AT_ONCE_SECONDS = 1e-9


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What each principal may do.

    Attributes:
        calls_per_second: in the long run.
        burst: so many calls at once, after a rest.
        in_flight: calls under way at a time.
        streams: subscriptions open at a time.
    """

    calls_per_second: float = 200.0
    burst: int = 400
    in_flight: int = 100
    streams: int = 50


class _Use:
    """What one principal does: when its bucket will be full again, and what it has under way."""

    __slots__ = ("full_at", "in_flight", "left", "queue", "streams", "waiting")

    def __init__(self) -> None:
        self.full_at = 0.0
        self.in_flight = 0
        self.streams = 0
        self.waiting = 0
        self.queue: asyncio.Lock | None = None
        self.left: asyncio.Event | None = None


class Limits:
    """Counts what principals do. Those of one tenant and subject are one, whatever their credentials.

    A bucket is one number: when it will be full again. Full ones need not be remembered, so that the memory is bounded by who
    did something in the last moments.

    Args:
        clock: seconds that only ever rise.
    """

    def __init__(self, allowance: Allowance, *, clock: Callable[[], float] = time.monotonic, most: int = MOST_PRINCIPALS) -> None:
        self._allowance = allowance
        self._interval = 1.0 / allowance.calls_per_second
        # A call is let in when, after it, the bucket is full again within so many seconds.
        self._depth = allowance.burst * self._interval
        self._clock = clock
        self._most = most
        self._uses: OrderedDict[tuple[str, str], _Use] = OrderedDict()

    def __len__(self) -> int:
        return len(self._uses)

    def enter(self, principal: Principal, *, stream: bool = False) -> None:
        """A call begins; `leave` has to follow it. A call that is refused takes nothing from what the principal may do.

        Raises:
            RateLimited: too many in the last moments.
            TooManyInFlight: too many at once.
        """
        now = self._clock()
        use = self._use_of(principal, now)
        allowance = self._allowance
        if stream and use.streams >= allowance.streams:
            raise TooManyInFlight(
                f"{principal.subject!r} has {use.streams} streams open, and may have {allowance.streams}: close one first.",
                retry_after=1,
            )
        if not stream and use.in_flight >= allowance.in_flight:
            raise TooManyInFlight(
                f"{principal.subject!r} has {use.in_flight} calls under way, and may have {allowance.in_flight}: wait for one.",
                retry_after=1,
            )
        wait = self._wait(use, now)
        if wait > _AT_ONCE_SECONDS:
            raise RateLimited(
                f"{principal.subject!r} makes more than {allowance.calls_per_second:g} calls a second: slow down.",
                retry_after=wait,
            )
        use.full_at = max(use.full_at, now) + self._interval
        if stream:
            use.streams += 1
        else:
            use.in_flight += 1

    def leave(self, principal: Principal, *, stream: bool = False) -> None:
        """A call that `enter` let in has ended."""
        use = self._uses[(principal.tenant, principal.subject)]
        if stream:
            use.streams -= 1
        else:
            use.in_flight -= 1
            if use.left is not None:
                use.left.set()

    def allows(self, principal: Principal, calls: int) -> bool:
        """Whether so many calls of the principal could `enter` now, one right after another."""
        now = self._clock()
        use = self._uses.get((principal.tenant, principal.subject)) or _Use()
        if use.in_flight + calls > self._allowance.in_flight:
            return False
        return self._wait(use, now, calls) <= _AT_ONCE_SECONDS

    async def turn(self, principal: Principal) -> None:
        """Returns when a call of the principal may `enter`, which it then has to do at once. Those who wait so are let in one
        after another, in the order in which they came; who enters without waiting may come before them."""
        use = self._use_of(principal, self._clock())
        use.queue = use.queue or asyncio.Lock()
        use.waiting += 1
        try:
            async with use.queue:
                await self._place(use)
        finally:
            use.waiting -= 1

    async def _place(self, use: _Use) -> None:
        while True:
            if use.in_flight >= self._allowance.in_flight:
                use.left = asyncio.Event()
                await use.left.wait()
                use.left = None
            elif (wait := self._wait(use, self._clock())) > _AT_ONCE_SECONDS:
                await asyncio.sleep(wait)
            else:
                return

    def _wait(self, use: _Use, now: float, calls: int = 1) -> float:
        """Seconds until so many calls more may be made."""
        return max(use.full_at, now) + calls * self._interval - now - self._depth

    def under_way(self, principal: Principal) -> int:
        """How many calls of a principal are under way."""
        use = self._uses.get((principal.tenant, principal.subject))
        return 0 if use is None else use.in_flight

    def _use_of(self, principal: Principal, now: float) -> _Use:
        key = (principal.tenant, principal.subject)
        use = self._uses.get(key)
        if use is not None:
            self._uses.move_to_end(key)
            return use
        if len(self._uses) >= self._most:
            self._sweep(now)
        use = self._uses[key] = _Use()
        return use

    def _sweep(self, now: float) -> None:
        """Forgets some who rest: with a full bucket and nothing under way they are as those who never came."""
        for _ in range(min(_SWEPT_AT_ONCE, len(self._uses))):
            key, use = next(iter(self._uses.items()))
            if use.full_at <= now and not use.in_flight and not use.streams and not use.waiting:
                del self._uses[key]
            else:
                self._uses.move_to_end(key)
