"""How far a view is that another process keeps: what that process tells of it, and what its parent knows by that.

Which jobs were touched and the positions after that go in one message: whoever looks at the positions has been told of everything
below them.
"""

from __future__ import annotations

import asyncio
import marshal
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from headrace.models import Job
from headrace.ports import TopicPartition
from headrace.views.job_changes import JobChanges, Touch, touch_of, touches_of
from headrace.views.job_table import Fact
from headrace.views.keeping import Following

MOST_TOUCHES: Final = 100_000
"""Of which the parent was not told yet: a parent that reads so late has no watchers who could be told in time."""


class Touched:
    """Collects in the child what watchers in the parent are to be told."""

    def __init__(self) -> None:
        self._touches: dict[Touch | None, None] = {}
        self._interrupted: str | None = None
        self.collected = asyncio.Event()

    def tell(self, facts: Iterable[Fact]) -> None:
        """See `JobChanges.tell`."""
        self._add(touches_of(facts))

    def tell_accepted(self, jobs: Iterable[Job]) -> None:
        """See `JobChanges.tell_accepted`."""
        self._add(map(touch_of, jobs))

    def interrupt(self, reason: str) -> None:
        """See `JobChanges.interrupt`."""
        self._touches.clear()
        self._interrupted = reason
        self.collected.set()

    def take(self) -> tuple[bytes, str | None]:
        """The touches since the last time, packed, and why watchers are to be sent away before."""
        taken = marshal.dumps(list(self._touches)) if self._touches else b"", self._interrupted
        self._touches, self._interrupted = {}, None
        self.collected.clear()
        return taken

    def _add(self, touches: Iterable[Touch | None]) -> None:
        self._touches.update(dict.fromkeys(touches))
        if len(self._touches) > MOST_TOUCHES:
            self.interrupt(f"more than {MOST_TOUCHES:,} changed jobs waited to be told of")
        self.collected.set()


class Teller:
    """Says in the child what is new since the last time."""

    def __init__(self, following: Following, touched: Touched) -> None:
        self._following = following
        self._touched = touched
        self._positions: dict[TopicPartition, int] | None = None

    def news(self) -> tuple[Any, ...]:
        """What a frame of `Kind.STANDING` holds; it is all true at one moment."""
        now, before = dict(self._following.positions), self._positions
        whole = before is None or not before.keys() <= now.keys()
        moved = [
            (*partition, offset)
            for partition, offset in now.items()
            if whole or before is None or before.get(partition) != offset
        ]
        self._positions = now
        return (
            *self._touched.take(),
            whole,
            moved,
            self._following.caught_up,
            self._following.behind,
            self._following.trouble,
            dict(self._following.undecodable),
        )


class Standing:
    """What the parent knows.

    Attributes:
        positions: the offset of the next record of each partition that was not yet taken in.
    """

    def __init__(self) -> None:
        self.positions: dict[TopicPartition, int] = {}
        self.caught_up = False
        self.behind = 0
        self.trouble: str | None = None
        self.undecodable: Counter[str] = Counter()

    def take(self, news: tuple[Any, ...], changes: JobChanges) -> Mapping[TopicPartition, int]:
        """Takes in what the child told, and tells watchers of it; returns the positions that moved."""
        touches, interrupted, whole, moved, self.caught_up, self.behind, self.trouble, undecodable = news
        if interrupted is not None:
            changes.interrupt(interrupted)
        # While nobody watches they stay as they came.
        if touches and changes.watched:
            changes.tell_touched(marshal.loads(touches))
        positions = {TopicPartition(topic, partition): offset for topic, partition, offset in moved}
        self.positions = positions if whole else {**self.positions, **positions}
        self.undecodable = Counter(undecodable)
        return positions
