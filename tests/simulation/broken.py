"""What a broken engine is: a rule that is taken away, and a seed that finds it out."""

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
        found_by: where the search for a seed that finds it begins, as long as `found_by.json` knows none.
    """

    rule: str
    apply: Callable[[Patch], None]
    found_by: int = 0

    @property
    def name(self) -> str:
        """Tells it from all others."""
        return self.apply.__name__
