"""The sliding window: which part of a memory is kept as it is, and which is summarised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.memory.records import SUPERSEDES_LIMIT_BYTES, ids_bytes
from headrace.memory.summarise.tokens import estimate_tokens
from headrace.models import MemoryEntry

_LEAST_SHARE = 4
"""The summary gets this part of the budget at least, however much the kept turns take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPolicy:
    """What a compaction aims at.

    Attributes:
        token_budget: estimated tokens that the memory may hold afterwards.
        keep_turns: newest turns that are kept in any case, also where they take more than the budget.
    """

    token_budget: int
    keep_turns: int


@dataclass(frozen=True, slots=True)
class Window:
    """A memory divided in two. `summary_tokens` is what the summary of the old part may take."""

    old: tuple[MemoryEntry, ...]
    kept: tuple[MemoryEntry, ...]
    summary_tokens: int


def divide(entries: Sequence[MemoryEntry], policy: WindowPolicy) -> Window | None:
    """The window over a memory, or None where there is nothing to do.

    Half of the budget is the summary's. The other half is filled with the newest entries, and holds the newest `keep_turns`
    turns even where they do not fit; the summary then gets what is left, a quarter of the budget at least. All that is older,
    earlier summaries among it, is to be summarised.

    There is nothing to do within the budget, and where the old part is no larger than its summary may be.
    """
    weights = [estimate_tokens(entry.content) for entry in entries]
    if sum(weights) <= policy.token_budget:
        return None
    start = _first_kept(entries, weights, policy)
    room = policy.token_budget - sum(weights[start:])
    summary_tokens = max(room, policy.token_budget // _LEAST_SHARE)
    if sum(weights[:start]) <= summary_tokens:
        return None
    return Window(_in_one_record(entries[:start]), tuple(entries[start:]), summary_tokens)


def _first_kept(entries: Sequence[MemoryEntry], weights: Sequence[int], policy: WindowPolicy) -> int:
    """The index from which on entries are kept: back from the newest, as long as turns are owed or there is room."""
    owed, room = policy.keep_turns, policy.token_budget // 2
    start = len(entries)
    while start > 0:
        room -= weights[start - 1]
        if owed <= 0 and room < 0:
            break
        start -= 1
        owed -= entries[start].role != "summary"
    return start


def _in_one_record(old: Sequence[MemoryEntry]) -> tuple[MemoryEntry, ...]:
    """As many of the oldest as one compaction can name: some tens of thousands. The next compaction goes on from there."""
    room = SUPERSEDES_LIMIT_BYTES
    for index, entry in enumerate(old):
        room -= ids_bytes([entry.id])
        if room < 0:
            return tuple(old[:index])
    return tuple(old)
