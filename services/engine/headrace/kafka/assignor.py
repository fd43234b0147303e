"""Who of a group gets which partitions: kept from one assignment to the next as far as balance allows."""

from __future__ import annotations

from typing import Any

from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor


def sticky_assignor() -> Any:
    """A sticky assignor for one consumer.

    aiokafka keeps what a member held last on the class of its assignor. Two consumers of a process that shared the class would
    each claim what the other holds: every consumer gets a class of its own.
    """

    class OwnStickyAssignor(StickyPartitionAssignor):
        pass

    return OwnStickyAssignor
