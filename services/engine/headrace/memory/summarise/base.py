"""What a summariser is: a way to say in few tokens what many entries say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from headrace.models import MemoryEntry


@dataclass(frozen=True, slots=True)
class Summary:
    """What a summariser made.

    Attributes:
        text: the summary, without anything around it.
        truncated: the summariser stopped before it was done, so that the end is missing. Such a summary is never stored.
    """

    text: str
    truncated: bool = False


class Summariser(Protocol):
    """Summarises entries. It is trusted with nothing: what it makes goes through the guards before it is stored."""

    @property
    def name(self) -> str:
        """By which a job's result says how its summary came about, for example `extractive`."""

    async def summarise(self, texts: Sequence[MemoryEntry], *, title: str | None, token_budget: int) -> Summary:
        """A summary of `texts`, given in reading order, earlier summaries among them (role `summary`).

        Args:
            title: what the summary is about, where somebody said so.
            token_budget: how many estimated tokens it should not exceed.

        Raises:
            SummaryRejected: no summary could be made; the message says why.
        """


@runtime_checkable
class AsksOutside(Protocol):
    """A summariser that asks a model elsewhere may be this as well: then what a job got is recorded for its replays."""

    @property
    def asks_outside(self) -> bool:
        """Whether it does."""


@runtime_checkable
class Closable(Protocol):
    """A summariser that holds something open may be this as well."""

    async def close(self) -> None:
        """Gives it back. Called once, when nothing will be summarised any more."""
