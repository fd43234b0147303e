"""Summarisers, and what keeps a bad summary out of memory."""

from __future__ import annotations

from headrace.memory.summarise.base import AsksOutside, Closable, Summariser, Summary
from headrace.memory.summarise.factory import summariser_from
from headrace.memory.summarise.guards import check_summary
from headrace.memory.summarise.tokens import estimate_tokens, total_tokens

__all__ = [
    "AsksOutside",
    "Closable",
    "Summariser",
    "Summary",
    "check_summary",
    "estimate_tokens",
    "summariser_from",
    "total_tokens",
]
