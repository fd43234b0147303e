"""Whether a member of the group takes calls in, and why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

REJOIN_SECONDS: Final = 30.0
"""How long it may be without partitions while the group deals them out anew: that happens to all members at once, and is no
trouble of any of them."""


class Standing:
    """What is known of how a member stands.

    Args:
        clock: seconds that only ever rise.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._why: str | None = "it has not been started yet"
        self._since = float("-inf")
        self._unreachable: str | None = None
        self._ended: str | None = None

    @property
    def trouble(self) -> str | None:
        """Why no calls are taken in at the moment, or None."""
        if self._ended is not None:
            return self._ended
        if self._unreachable is not None:
            return f"the group cannot be reached: {self._unreachable}"
        return self._why if self._clock() >= self._since + REJOIN_SECONDS else None

    def joining(self) -> None:
        """It begins to join the group."""
        self._why = "the group has not let it in yet"

    def dealing(self) -> None:
        """Its partitions were taken from it, and the group deals them out anew."""
        if self._why is None:
            self._since = self._clock()
        self._why = "the group has taken its partitions, and has not dealt them out again"

    def recovering(self) -> None:
        """It has partitions of which it does not know yet which calls are answered."""
        if self._why is None:
            self._since = self._clock()
        self._why = "it does not know yet which calls are answered"

    def taking(self) -> None:
        """It takes in the calls of all partitions that it has, if it has any."""
        self._why, self._since = None, float("-inf")

    def reached(self, failure: str | None = None) -> None:
        """The group has answered, or has not, and why."""
        self._unreachable = failure

    def over(self, reason: str) -> None:
        """It does nothing any more."""
        self._ended = self._ended or reason
