"""Holds up a replay in its own process, at the step that REPLAY_HOLD names, until the test lets it go on; see `Hold`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection
from pathlib import Path

from headrace.kafka.log import KafkaLog
from headrace.kafka.writer import KafkaWriter
from headrace.ports import Acknowledged, NewRecord, TopicPartition
from headrace.replay.sandboxes.markers import MARKER_KEY


async def _hold(folder: Path) -> None:
    (folder / "held").touch()
    while not (folder / "free").exists():  # noqa: ASYNC110 - by another process
        await asyncio.sleep(0.02)


def hold_as_told() -> None:
    """Has this process held, as the environment says."""
    step, _, path = os.environ["REPLAY_HOLD"].partition(" ")
    folder = Path(path)
    delete, append = KafkaLog.delete_topics, KafkaWriter.append

    async def held_delete(log: KafkaLog, names: Collection[str]) -> None:
        await _hold(folder)
        await delete(log, names)

    async def held_append(writer: KafkaWriter, target: TopicPartition, record: NewRecord, *, timeout: float) -> Acknowledged:
        if record.key == MARKER_KEY:
            await _hold(folder)
        return await append(writer, target, record, timeout=timeout)

    if step == "removal":
        KafkaLog.delete_topics = held_delete  # type: ignore[method-assign, assignment]
    if step == "marking":
        KafkaWriter.append = held_append  # type: ignore[method-assign, assignment]
