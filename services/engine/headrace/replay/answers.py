"""What a job got from outside when it ran, for its replay."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from itertools import count, islice
from typing import Final, NamedTuple

from headrace.errors import NotRecorded
from headrace.ports import RecordingKey
from headrace.recordings import decode_failure, given_names, of_either_kind
from headrace.replay.effects import Effects
from headrace.replay.waiting import WaitedHistory

_TURNS_BETWEEN: Final = 10
"""So many turns of the event loop what follows from an answer has to begin, before the next answer is handed out."""


class _Past(NamedTuple):
    """Something that was recorded, and its place in the order of the log."""

    value: bytes
    place: int


def _without_key(name: str) -> str:
    return list(islice(given_names(name), 2))[-1]


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
        self._recorded: dict[int, Mapping[RecordingKey, _Past]] = {}
        self._handing_out = _InOrder()

    async def find(self, key: RecordingKey, *, reuse: bool) -> bytes | None:
        """What the attempt got, or took from an earlier one.

        Raises:
            NotRecorded: it got nothing by that name and number, and is not to ask for it.
            Exception: what it asked raised this then.
        """
        # Which of them it was then may have hung on how fast the answers came.
        sure, unsure = of_either_kind(key)
        own = await self._of(self._attempt)
        for each in (sure, unsure):
            if (failure := own.get(each._replace(failure=self._failures[sure]))) is not None:
                self._failures[sure] += 1
                await self._handing_out.wait_for((self._attempt, failure.place))
                raise decode_failure(failure.value)
            if (found := own.get(each)) is not None:
                return await self._handed_out(self._attempt, found)
        for attempt in range(self._attempt - 1, 0, -1) if reuse else ():
            if (found := (await self._of(attempt)).get(sure)) is not None:
                return await self._handed_out(attempt, found)
        if self._live:
            self._effects.asked_outside.append(sure)
            return None
        self._effects.not_recorded.append(sure)
        raise NotRecorded(self._not_recorded(sure, unsure, own))

    def _not_recorded(self, sure: RecordingKey, unsure: RecordingKey, own: Mapping[RecordingKey, _Past]) -> str:
        asked = f"Attempt {self._attempt} of job {self._job_id} recorded nothing as {sure.name!r}, number {sure.number}"
        of_name = sum(key.name in (sure.name, unsure.name) and key.failure is None for key in own)
        alike = sum(_without_key(key.name) == _without_key(sure.name) and key.failure is None for key in own)
        if of_name:
            why = f"it has {of_name} by that name, and today's code asks for more"
        elif alike:
            why = f"it has {alike} of the same name with other keys or none, so that the key is another one than it was"
        else:
            why = (
                "today's code asks anew, or by another name than then; or the attempt went another way, ended before that, or"
                " was cancelled while it asked; or it is more than a week ago"
            )
        return (
            f"{asked}: {why}. If that is meant, as of a new call, `--live` asks outside for it now; if not, mend the code: a call"
            " has to have the name and the key that it had then, and to be made as often."
        )

    async def write(self, key: RecordingKey, value: bytes) -> None:
        """Writes nothing."""

    async def _handed_out(self, attempt: int, found: _Past) -> bytes:
        await self._handing_out.wait_for((attempt, found.place))
        return found.value

    async def _of(self, attempt: int) -> Mapping[RecordingKey, _Past]:
        async with self._reading:
            if attempt not in self._recorded:
                recorded = await self._history.recordings(self._job_id, attempt)
                self._recorded[attempt] = {key: _Past(value, place) for place, (key, value) in enumerate(recorded.items())}
            return self._recorded[attempt]


class _InOrder:
    """Has those who ask at a time get their answers in the order in which these came then.

    What the job does next may hang on which of them is the first.
    """

    def __init__(self) -> None:
        self._tickets = count()
        self._waiting: set[tuple[tuple[int, int], int]] = set()
        self._handed_out = 0

    async def wait_for(self, place: tuple[int, int]) -> None:
        """Returns when it is the turn of an answer with that place."""
        own = (place, next(self._tickets))
        self._waiting.add(own)
        try:
            # Whoever asks in the same turn of the event loop as this has asked after one.
            needed, turns, before = 1, 0, self._handed_out
            while turns < needed:
                await asyncio.sleep(0)
                if len(self._waiting) > 1:
                    needed = _TURNS_BETWEEN
                turns = turns + 1 if before == self._handed_out and own == min(self._waiting) else 0
                before = self._handed_out
        finally:
            self._waiting.discard(own)
            self._handed_out += 1
