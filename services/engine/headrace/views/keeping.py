"""What a view of jobs needs of whoever keeps its file equal to the log, in this process or in one of its own."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from headrace.models import Job
from headrace.ports import TopicPartition
from headrace.views.job_changes import JobChanges
from headrace.views.job_table import Fact

ResultT = TypeVar("ResultT")


class Following(Protocol):
    """How far the file is, and what can be waited for; see `JobView`, which has the same."""

    @property
    def caught_up(self) -> bool: ...
    @property
    def behind(self) -> int: ...
    @property
    def trouble(self) -> str | None: ...
    @property
    def positions(self) -> Mapping[TopicPartition, int]: ...
    @property
    def undecodable(self) -> Counter[str]: ...

    async def wait_caught_up(self, timeout: float) -> None: ...
    async def catch_up(self, timeout: float) -> None: ...
    async def read_on(self, timeout: float) -> None: ...
    async def ask(self) -> None: ...


class JobKeeper(Protocol):
    """Keeps the file, and reads from it."""

    @property
    def path(self) -> Path:
        """The file that is used."""

    @property
    def changes(self) -> JobChanges:
        """Tells watchers which jobs have changed: of everything below the positions, before they move on."""

    @property
    def following(self) -> Following:
        """How far the file is."""

    async def start(self) -> None:
        """Opens the file, and begins to follow the log from where it stands.

        Raises:
            ConfigurationError: the file cannot be written.
        """

    async def stop(self) -> None:
        """Writes the accepted jobs that have no row, ends the following, and closes the file."""

    async def accept(self, jobs: Sequence[Job]) -> None:
        """Takes jobs that were accepted here: whoever reads finds them."""

    async def read(self, work: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        """What `work` finds in the file, once all accepted jobs have rows. A file that proves damaged is made anew first."""


class WorkersKnown(Protocol):
    """The workers that are defined, as far as whoever follows their topics needs to know."""

    @property
    def definitions(self) -> Iterable[str]:
        """Their names."""

    def on_change(self, call: Callable[[], None]) -> None:
        """Has `call` called in the event loop whenever a definition has changed."""

    async def wait_ready(self, timeout: float) -> None:
        """Waits until those are known that there were at the start."""

    async def catch_up(self, timeout: float) -> None:
        """Waits until those are known that there are at the time of the call."""


class ToldOfJobs(Protocol):
    """Is told of what is taken in: see `JobChanges`."""

    def tell(self, facts: Iterable[Fact]) -> None: ...
    def tell_accepted(self, jobs: Iterable[Job]) -> None: ...
    def interrupt(self, reason: str) -> None: ...
