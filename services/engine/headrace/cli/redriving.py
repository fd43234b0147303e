"""`headrace dead-letters redrive`: which letters are meant, and what becomes of them, some at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from headrace.cli.common import opened_client
from headrace.client import Client
from headrace.dead_letters import DeadLetter, DeadLetterFilter, Redrive, parse_place
from headrace.errors import BrokerError, DeadLetterUnknown, EnqueueTimeout, HeadraceError
from headrace.settings import Settings

_AT_A_TIME = 100


def matching_letters(client: Client, wanted: DeadLetterFilter) -> AsyncGenerator[DeadLetter]:
    """The letters that the filter lets through, of those that there are now."""
    return client.dead_letters(
        worker_name=wanted.worker_name, reason=wanted.reason, job_id=wanted.job_id, since=wanted.since, until=wanted.until
    )


async def named_letters(client: Client, names: Sequence[str]) -> list[DeadLetter]:
    """The letters that stand at these places, and all of these jobs.

    Raises:
        DeadLetterUnknown: one of the names has none.
    """
    found: list[DeadLetter] = []
    for name in dict.fromkeys(names):
        place = parse_place(name)
        if place is not None:
            letter = await client.get_dead_letter(*place)
            some = [] if letter is None else [letter]
        else:
            some = [each async for each in client.dead_letters(job_id=name)]
        if not some:
            raise DeadLetterUnknown(
                f"There is no dead letter {name!r}; they are kept for 30 days. `headrace dead-letters list` lists the newest."
            )
        found += some
    return found


class RedrivePlan(NamedTuple):
    """Which letters are redriven, and how."""

    wanted: DeadLetterFilter
    places: frozenset[tuple[int, int]]
    worker: str | None
    args: dict[str, Any] | None
    dry_run: bool


@dataclass(slots=True)
class Tally:
    """What became of many, without their bytes.

    Attributes:
        trouble: why the rest was not tried.
        left: how many that are.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)
    described: list[dict[str, Any]] = field(default_factory=list)
    trouble: HeadraceError | None = None
    left: int = 0

    def add(self, outcomes: Sequence[Redrive]) -> None:
        for each in outcomes:
            self.counts[each.outcome] += 1
            self.described.append(each.to_wire())
            if each.error is not None:
                self.failures.append((each.letter.place, str(each.error)))
                if isinstance(each.error, BrokerError | EnqueueTimeout):
                    self.trouble = each.error


async def select_letters(settings: Settings, wanted: DeadLetterFilter, names: Sequence[str]) -> list[tuple[int, int]]:
    """Where the letters stand that are meant. What they hold is read when their turn comes: it may be more than there is room."""
    async with opened_client(settings) as client:
        if names:
            found = [letter for letter in await named_letters(client, names) if wanted.matches(letter)]
            return [(letter.partition, letter.offset) for letter in found]
        return [(letter.partition, letter.offset) async for letter in matching_letters(client, wanted)]


async def redrive_letters(settings: Settings, plan: RedrivePlan) -> Tally:
    tally = Tally()
    columns = (TextColumn("redriving"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("redriving", total=len(plan.places))
        async with opened_client(settings) as client, aclosing(_batches(client, plan)) as batches:
            async for batch in batches:
                try:
                    tally.add(await client.redrive(batch, worker_name=plan.worker, args=plan.args, dry_run=plan.dry_run))
                except BrokerError as error:
                    tally.trouble = error
                progress.advance(task, len(batch))
                if tally.trouble is not None:
                    tally.left = len(plan.places) - tally.counts.total()
                    break
    return tally


async def _batches(client: Client, plan: RedrivePlan) -> AsyncGenerator[list[DeadLetter]]:
    """The letters that were chosen, and no others: a redriven job may come back as a letter that fits the filter, too."""
    batch: list[DeadLetter] = []
    if len(plan.places) <= _AT_A_TIME:
        found = [await client.get_dead_letter(*place) for place in sorted(plan.places)]
        batch = [letter for letter in found if letter is not None]
    else:
        async with aclosing(matching_letters(client, plan.wanted)) as letters:
            async for letter in letters:
                if (letter.partition, letter.offset) in plan.places:
                    batch.append(letter)
                if len(batch) == _AT_A_TIME:
                    yield batch
                    batch = []
    if batch:
        yield batch
