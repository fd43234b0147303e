"""The workers that ship with headrace."""

from __future__ import annotations

from typing import Any

from headrace.abstract_worker import AbstractWorker
from headrace.settings import Settings
from headrace.workers.memory_compaction import MemoryCompactionWorker


def shipped_workers(settings: Settings) -> list[AbstractWorker[Any]]:
    """One of each, as the settings want them."""
    return [MemoryCompactionWorker(settings)]
