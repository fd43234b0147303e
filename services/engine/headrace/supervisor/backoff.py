"""How long to wait before another engine is started in the place of one that has ended."""

from __future__ import annotations

_FIRST_SECONDS = 0.5
_LONGEST_SECONDS = 30.0
_FORGOTTEN_SECONDS = 60.0


class Backoff:
    """Doubles with each engine that ends soon, and begins anew after one that lived for a minute."""

    def __init__(self) -> None:
        self._next = _FIRST_SECONDS

    def after(self, lived: float) -> float:
        """Seconds to wait after an engine that lived for so many seconds."""
        if lived >= _FORGOTTEN_SECONDS:
            self._next = _FIRST_SECONDS
        seconds, self._next = self._next, min(2 * self._next, _LONGEST_SECONDS)
        return seconds
