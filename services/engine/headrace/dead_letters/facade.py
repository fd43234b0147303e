"""Dead letters for programs: look at them, and have done anew what they asked for."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterable, Mapping
from datetime import datetime
from typing import Any

from headrace.core.topics import Topics
from headrace.dead_letters.letters import DeadLetter, DeadLetterFilter, read_dead_letter, read_dead_letters
from headrace.dead_letters.redriving import Redrive, redrive
from headrace.ports import Log
from headrace.resubmission import Submitter
from headrace.sandbox_refusal import provide_topics

REDRIVE_SECONDS = 10.0


class Redriving(ABC):
    """The part of a `Client` that has to do with dead letters."""

    topics: Topics
    _log: Log

    @abstractmethod
    async def _submitter(self) -> Submitter:
        """For new jobs in place of old ones."""

    async def dead_letters(
        self,
        *,
        worker_name: str | None = None,
        reason: str | None = None,
        job_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> AsyncGenerator[DeadLetter]:
        """The dead letters of all tenants that there are now and that have all that is given; by partition, oldest first.

        Args:
            worker_name: in whose queue the record stood.
            since, until: written at or after the one, before the other; with a zone.
        """
        await provide_topics(self._log, self.topics, [self.topics.dead_letters])
        wanted = DeadLetterFilter(worker_name=worker_name, reason=reason, job_id=job_id, since=since, until=until)
        async with contextlib.aclosing(read_dead_letters(self._log, self.topics.dead_letters.name, wanted)) as letters:
            async for letter in letters:
                yield letter

    async def get_dead_letter(self, partition: int, offset: int) -> DeadLetter | None:
        """The dead letter that stands there; None when there is none, or none any more."""
        await provide_topics(self._log, self.topics, [self.topics.dead_letters])
        return await read_dead_letter(self._log, self.topics.dead_letters.name, partition, offset)

    async def redrive(
        self,
        letters: Iterable[DeadLetter],
        *,
        worker_name: str | None = None,
        args: Mapping[str, Any] | None = None,
        dry_run: bool = False,
        timeout: float = REDRIVE_SECONDS,
    ) -> list[Redrive]:
        """Does anew what dead letters asked for: a new job for each, with its tenant, and arguments and context where they can
        be read. What became of each is told in their order; one that fails costs itself alone.

        A record is redriven once as long as its new job is known: its id follows from where the record stood.

        Args:
            worker_name: who is to do it; the worker that the record names when left out.
            args: in place of the arguments in the letters.
            dry_run: finds out what would become of them, and writes nothing.
            timeout: seconds to wait for each acknowledgement.
        """
        submitter = await self._submitter()
        return await redrive(list(letters), submitter, worker_name=worker_name, args=args, dry_run=dry_run, timeout=timeout)
