"""Members of groups that end as nobody expects."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from headrace.ports import TopicPartition
from headrace.testing import StoredRecord
from headrace.testing.consumer import InMemoryGroupConsumer


def break_members(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Has each member of a group raise what nobody expects, once the event is set."""
    broken = asyncio.Event()
    fetch = InMemoryGroupConsumer.fetch

    async def failing(self: InMemoryGroupConsumer, **values: Any) -> Mapping[TopicPartition, Sequence[StoredRecord]]:
        if broken.is_set():
            raise RuntimeError("nobody expected this")
        return await fetch(self, **values)

    monkeypatch.setattr(InMemoryGroupConsumer, "fetch", failing)
    return broken
