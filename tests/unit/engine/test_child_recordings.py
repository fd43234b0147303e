"""What an attempt in a child process records is asked for in the name of its own call, however late."""

from __future__ import annotations

import asyncio

import orjson

from headrace.engine.processes.frames import NUMBER, Kind
from headrace.engine.processes.recordings import ChildRecordings
from headrace.ports import RecordingKey


async def test_who_outlives_an_attempt_records_in_its_name_and_not_in_the_next_ones() -> None:
    sent: list[tuple[int, Kind]] = []

    def send(kind: Kind, content: bytes) -> None:
        [call] = NUMBER.unpack_from(content)
        sent.append((call, kind))
        asked = orjson.loads(content[NUMBER.size :].split(b"\n")[0])
        recordings.answered(orjson.dumps({"request": asked["request"], "found": False}) + b"\n")

    recordings, key = ChildRecordings(send), RecordingKey("model", 0)
    first, second = recordings.of(1), recordings.of(2)
    await second.write(key, b"2")
    async with asyncio.timeout(60):
        assert await first.find(key, reuse=True) is None
        await first.write(key, b"1")
    assert sent == [(2, Kind.RECORD), (1, Kind.FIND), (1, Kind.RECORD)]
