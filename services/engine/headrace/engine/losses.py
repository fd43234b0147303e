"""How long a partition rests whose claim was lost."""

from __future__ import annotations

from headrace.ports import TopicPartition

_LONGEST_PAUSE_SECONDS = 15.0
_FORGOTTEN_SECONDS = 120.0


class Losses:
    """Claims that are lost again and again, as by a record that no broker takes, must not fill `job-state` with claims."""

    def __init__(self) -> None:
        self._losses: dict[TopicPartition, tuple[float, int]] = {}

    def pause(self, source: TopicPartition, now: float) -> float:
        """A claim of this partition was lost: seconds until the next; none after the first loss.

        Args:
            now: by the loop's clock.
        """
        lost_at, count = self._losses.get(source, (0.0, 0))
        count = count + 1 if now - lost_at < _FORGOTTEN_SECONDS else 1
        self._losses[source] = (now, count)
        return 0.0 if count == 1 else min(0.1 * 2.0**count, _LONGEST_PAUSE_SECONDS)
