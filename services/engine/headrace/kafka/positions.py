"""Where a consumer reads on, when a poll fails in the middle.

When aiokafka's poll finds damage in one partition, it throws away what it has taken out of others, whose positions have moved on
all the same; and of the damaged one, what follows the damage is read next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def known_positions(consumer: Any) -> dict[Any, int]:
    """The offset of the next record of each assigned partition, as far as it is known without asking anybody."""
    assignment = consumer._subscription.subscription and consumer._subscription.subscription.assignment
    if not assignment:
        return {}
    states = {partition: assignment.state_value(partition) for partition in assignment.tps}
    return {partition: state.position for partition, state in states.items() if state is not None and state.has_valid_position}


def go_back(consumer: Any, positions: Mapping[Any, int]) -> None:
    """Reads on from these positions, in the partitions that are still assigned: nothing since then was handed out."""
    held = consumer.assignment()
    for partition, position in positions.items():
        if partition in held:
            consumer.seek(partition, position)
