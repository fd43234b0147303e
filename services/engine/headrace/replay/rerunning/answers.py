"""What a job got from outside when it ran, for its replay."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from heapq import heappop, heappush
from itertools import count, islice
from typing import Final, NamedTuple, TypeAlias

from headrace.errors import NotRecorded
from headrace.ports import RecordingKey
from headrace.recordings import decode_failure, given_names, of_either_kind
from headrace.replay.history import RecordedJob
from headrace.replay.rerunning.effects import Effects
from headrace.replay.rerunning.waiting import WaitedHistory

_TURNS_BETWEEN: Final = 10
"""So many turns of the event loop what follows from an answer has to begin, before the next answer is handed out."""


Place: TypeAlias = tuple[int, int]
"""In the order in which answers came: the attempt, and their number among what it recorded."""


class _Past(NamedTuple):
    """An answer that was recorded, or what was raised in its place."""

    place: Place
    value: bytes
    is_failure: bool


def _without_key(name: str) -> str:
    return list(islice(given_names(name), 2))[-1]


class PastAnswers:
    """The `Recorder` of one replayed attempt: it hands back what was recorded, and records nothing.

    Args:
        live: whether what was not recorded is asked for outside.
    """

    def __init__(self, history: WaitedHistory, job: RecordedJob, attempt: int, effects: Effects, *, live: bool) -> None:
        self._history = history
        self._job = job
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
        sure, unsure = of_either_kind(key)
        with self._handing_out.is_coming():
            found = await self._found(sure, unsure, reuse=reuse)
        if found is not None:
            await self._handing_out.wait_for(found.place)
            if found.is_failure:
                raise decode_failure(found.value)
            return found.value
        if self._live:
            self._effects.asked_outside.append(sure)
            return None
        self._effects.not_recorded.append(sure)
        raise NotRecorded(self._not_recorded(sure, unsure, await self._of(self._attempt)))

    def _not_recorded(self, sure: RecordingKey, unsure: RecordingKey, own: Mapping[RecordingKey, _Past]) -> str:
        asked = f"Attempt {self._attempt} of job {self._job.id} recorded nothing as {sure.name!r}, number {sure.number}"
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

    async def _found(self, sure: RecordingKey, unsure: RecordingKey, *, reuse: bool) -> _Past | None:
        # Which of them it was then may have hung on how fast the answers came.
        own = await self._of(self._attempt)
        for each in (sure, unsure):
            if (failure := own.get(each._replace(failure=self._failures[sure]))) is not None:
                self._failures[sure] += 1
                return failure
            if (found := own.get(each)) is not None:
                return found
        for attempt in range(self._attempt - 1, 0, -1) if reuse else ():
            if (found := (await self._of(attempt)).get(sure)) is not None:
                return found
        return None

    async def _of(self, attempt: int) -> Mapping[RecordingKey, _Past]:
        async with self._reading:
            if attempt not in self._recorded:
                recorded = await self._history.recordings(self._job, attempt)
                self._recorded[attempt] = {
                    key: _Past((attempt, number), value, key.failure is not None)
                    for number, (key, value) in enumerate(recorded.items())
                }
            return self._recorded[attempt]


class _Waiting(NamedTuple):
    """Somebody who waits for an answer. They are ordered as they are to get theirs; of one answer, as they asked."""

    place: Place
    ticket: int
    turn: asyncio.Future[None]


class _InOrder:
    """Has those who ask at a time get their answers in the order in which these came then.

    What the job does next may hang on which of them is the first. One callback counts the turns of the event loop for all who
    wait: to hand out an answer costs the same whether two wait or thousands.
    """

    def __init__(self) -> None:
        self._tickets = count()
        self._waiting: list[_Waiting] = []
        self._coming = 0
        self._first: _Waiting | None = None
        self._turns = 0
        self._needed = 1
        self._is_counting = False

    @contextmanager
    def is_coming(self) -> Iterator[None]:
        """While somebody has asked and reads of which answer that is: it may be before those for which others wait."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1
            self._count()

    async def wait_for(self, place: Place) -> None:
        """Returns when it is the turn of an answer with that place."""
        turn = asyncio.get_running_loop().create_future()
        heappush(self._waiting, _Waiting(place, next(self._tickets), turn))
        self._count()
        await turn

    def _count(self) -> None:
        if self._waiting and not self._coming and not self._is_counting:
            self._is_counting = True
            asyncio.get_running_loop().call_soon(self._pass_turn)

    def _pass_turn(self) -> None:
        """A turn has passed: whoever was the first to get an answer for long enough gets it."""
        self._is_counting = False
        waiting = self._waiting
        while waiting and waiting[0].turn.done():  # it was cancelled
            heappop(waiting)
        if not waiting:
            self._first, self._needed = None, 1
            return
        if self._coming:
            return
        if waiting[0] is not self._first:
            self._first, self._turns = waiting[0], 0
        # Whoever asks in the same turn of the event loop as this has asked after one.
        self._needed = _TURNS_BETWEEN if len(waiting) > 1 else self._needed
        self._turns += 1
        if self._turns >= self._needed:
            heappop(waiting).turn.set_result(None)
            self._first = None
            if not waiting:
                self._needed = 1
        self._count()
