"""Entries and summarisers for tests of memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from headrace.memory.summarise import Summary, estimate_tokens
from headrace.models import MemoryEntry, MemoryRole

AT = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


def entry(content: str, *, entry_id: str = "e", role: MemoryRole = "user", name: str | None = None) -> MemoryEntry:
    """An entry of conversation `trip` of `ann`."""
    return MemoryEntry(user_id="ann", conversation_id="trip", id=entry_id, role=role, name=name, content=content, at=AT)


@dataclass
class FirstWords:
    """A summariser that takes the first words of each entry, within the budget. It keeps what it was asked for."""

    asked: list[tuple[tuple[str, ...], str | None, int]] = field(default_factory=list)
    name: str = "first-words"

    async def summarise(self, texts: Sequence[MemoryEntry], *, title: str | None, token_budget: int) -> Summary:
        self.asked.append((tuple(text.content for text in texts), title, token_budget))
        each = max(1, token_budget // len(texts) - 1)
        words = [" ".join(text.content.split()[:each]) for text in texts]
        text = "\n".join(words)
        while estimate_tokens(text) > token_budget:
            text = text[: len(text) * 9 // 10]
        return Summary(text)


@dataclass
class Always:
    """A summariser that always says the same."""

    answer: Summary
    name: str = "always"

    async def summarise(self, texts: Sequence[MemoryEntry], *, title: str | None, token_budget: int) -> Summary:
        assert texts
        assert token_budget > 0
        assert title is None or title
        return self.answer
