"""What an engine tells of its claims to whoever watches over it from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from headrace.engine.partition import OwnedPartition
from headrace.settings import Settings


class Guardian(Protocol):
    """Hears of claims, so that it can end the process when a lease is over (H3), and release them when it is gone (R2).

    All calls come from the event loop, and none may block.
    """

    def introduce(self, settings: Settings, instance_id: str, orphaned: Callable[[], None]) -> None:
        """Says whose claims they will be, before the engine starts.

        Args:
            orphaned: called when whoever watches is gone: nobody enforces the leases any more.
        """

    def started(self) -> None:
        """The engine runs."""

    def ended(self) -> None:
        """The engine has stopped in order; what it could not stop ends with the process."""

    def holds(self, partition: OwnedPartition) -> None:
        """A claim of this partition is valid, or was renewed: jobs of it may run until its lease is over."""

    def vacated(self, partition: OwnedPartition) -> None:
        """Nothing of the partition runs any more, nor will under this claim; the claim may still stand in the log."""

    def released(self, partition: OwnedPartition) -> None:
        """The claim has ended, and the log says so."""

    def belongs(self, group: str, member_id: Callable[[], str]) -> None:
        """This instance joins a group, or has just been given its partitions.

        Args:
            member_id: the id that the group knows it by, as it is at the time; empty before it has one.
        """

    def left(self, group: str) -> None:
        """This instance belongs to a group no more."""


class NoGuardian:
    """For an engine that is a part of somebody else's program: nobody may kill that."""

    def introduce(self, settings: Settings, instance_id: str, orphaned: Callable[[], None]) -> None:
        pass

    def started(self) -> None:
        pass

    def ended(self) -> None:
        pass

    def holds(self, partition: OwnedPartition) -> None:
        pass

    def vacated(self, partition: OwnedPartition) -> None:
        pass

    def released(self, partition: OwnedPartition) -> None:
        pass

    def belongs(self, group: str, member_id: Callable[[], str]) -> None:
        pass

    def left(self, group: str) -> None:
        pass
