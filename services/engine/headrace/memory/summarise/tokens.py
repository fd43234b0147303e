"""An estimate of how many tokens a text is."""

from __future__ import annotations

from collections.abc import Iterable

from headrace.models import MemoryEntry

CHARACTERS_PER_TOKEN = 4


def estimate_tokens(text: str) -> int:
    """The tokens of a text: its characters divided by 4, rounded up.

    Exact counts differ from model to model, and their tables would have to be downloaded. For English prose this is within
    about a fifth of what models count; for code and other scripts, models count more.
    """
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def total_tokens(entries: Iterable[MemoryEntry]) -> int:
    """The tokens of the contents of all entries together."""
    return sum(estimate_tokens(entry.content) for entry in entries)
