"""What a broken engine is: one from which a rule is taken away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

Patch = pytest.MonkeyPatch


@dataclass(frozen=True, slots=True)
class Break:
    """An engine without one of its rules.

    Attributes:
        rule: its id in the protocol, or the promise.
        apply: takes the rule away.
        covered: whether no seed finds it; the documentation says why, and what holds instead.
    """

    rule: str
    apply: Callable[[Patch], None]
    covered: bool = False

    @property
    def name(self) -> str:
        """Tells it from all others."""
        return self.apply.__name__
