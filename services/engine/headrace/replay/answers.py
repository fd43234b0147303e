"""What a job got from outside when it ran, for its replay."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

from headrace.errors import NotRecorded
from headrace.ports import RecordingKey
from headrace.recordings import decode_failure
from headrace.replay.effects import Effects
from headrace.replay.waiting import WaitedHistory


class PastAnswers:
    """The `Recorder` of one replayed attempt: it hands back what was recorded, and records nothing.

    Args:
        live: whether what was not recorded is asked for outside.
    """

    def __init__(self, history: WaitedHistory, job_id: str, attempt: int, effects: Effects, *, live: bool) -> None:
        self._history = history
        self._job_id = job_id
        self._attempt = attempt
        self._effects = effects
        self._live = live
        self._reading = asyncio.Lock()
        self._failures: Counter[RecordingKey] = Counter()
        self._recorded: dict[int, Mapping[RecordingKey, bytes]] = {}

    async def find(self, key: RecordingKey, *, reuse: bool) -> bytes | None:
        """What the attempt got, or took from an earlier one.

        Raises:
            NotRecorded: it got nothing by that name and number, and is not to ask for it.
            Exception: what it asked raised this then.
        """
        own = await self._of(self._attempt)
        failed = key._replace(failure=self._failures[key])
        if (failure := own.get(failed)) is not None:
            self._failures[key] += 1
            raise decode_failure(failure)
        for attempt in range(self._attempt, 0, -1) if reuse else (self._attempt,):
            if (found := (await self._of(attempt)).get(key)) is not None:
                return found
        if self._live:
            self._effects.asked_outside.append(key)
            return None
        self._effects.not_recorded.append(key)
        raise NotRecorded(
            f"Attempt {self._attempt} of job {self._job_id} recorded nothing as {key.name!r}, number {key.number}: it went"
            " another way, ended before that, or was cancelled while it asked; or it is more than a week ago. `--live` asks"
            " outside for it now."
        )

    async def write(self, key: RecordingKey, value: bytes) -> None:
        """Writes nothing."""

    async def _of(self, attempt: int) -> Mapping[RecordingKey, bytes]:
        async with self._reading:
            if attempt not in self._recorded:
                self._recorded[attempt] = await self._history.recordings(self._job_id, attempt)
            return self._recorded[attempt]
