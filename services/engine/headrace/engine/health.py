"""How an engine is doing: what `/healthz` answers, and when that is bad news."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic.alias_generators import to_camel

_LOOP_SECONDS = 10.0
_POLL_SECONDS = 30.0
_APPEND_SECONDS = 30.0
# A plain function cannot be stopped, and many take minutes.
_HAND_OVER_SECONDS = 300.0
# Longer than another's lease takes to lapse, so that nobody waits that long for a partition.
_COMMIT_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """How one worker is doing in this engine.

    Attributes:
        assigned: partitions that the group gives to this engine.
        ready: those of them whose jobs it runs.
        running: attempts.
        waiting: jobs that wait for their start.
        since_poll: seconds since Kafka was last asked for jobs.
        since_commit: seconds since the group answered a commit, or gave out its partitions. Something is committed every 5 s.
        since_append: seconds in which no snapshot was acknowledged though some are under way; 0 when none is.
        since_hand_over: seconds since the oldest hand-over of a partition began that is not done; 0 when there is none.
    """

    assigned: int
    ready: int
    running: int
    waiting: int
    since_poll: float
    since_commit: float
    since_append: float
    since_hand_over: float = 0.0

    def troubles(self) -> list[str]:
        """What is wrong. An engine that has nothing to do, or no partition, has no trouble."""
        found = []
        if self.since_poll > _POLL_SECONDS:
            found.append(f"no poll for {self.since_poll:.0f} s")
        if self.assigned and self.since_commit > _COMMIT_SECONDS:
            found.append(f"no commit answered for {self.since_commit:.0f} s")
        if self.since_append > _APPEND_SECONDS:
            found.append(f"nothing acknowledged for {self.since_append:.0f} s though something waits for it")
        if self.since_hand_over > _HAND_OVER_SECONDS:
            found.append(
                f"a partition is kept from another engine for {self.since_hand_over:.0f} s by an attempt that does not stop"
            )
        return found


class AppendWatch:
    """Tells for how long nothing has been acknowledged although something is under way."""

    def __init__(self) -> None:
        self._last: tuple[float, bool] = (0.0, False)
        self._since = 0.0

    def seconds(self, now: float, acknowledged_at: float, under_way: bool) -> float:
        """To be called again and again, with the time of the newest acknowledgement by any clock."""
        if (acknowledged_at, under_way) != self._last:
            self._last, self._since = (acknowledged_at, under_way), now
        return now - self._since if under_way else 0.0


@dataclass(frozen=True, slots=True)
class Health:
    """A look at the whole engine.

    Attributes:
        at: when it was taken, by `time.monotonic`.
    """

    at: float
    workers: Mapping[str, WorkerHealth]

    def answer(self, silence: float, blocks: int, longest: float) -> tuple[bool, dict[str, Any]]:
        """Whether all is well, and what to answer as JSON.

        Args:
            silence: seconds since the event loop last ran.
            blocks: how often it was blocked.
            longest: for how many seconds at most.
        """
        troubles = [f"{name}: {trouble}" for name, worker in self.workers.items() for trouble in worker.troubles()]
        if silence > _LOOP_SECONDS:
            troubles.insert(0, f"the event loop has been blocked for {silence:.0f} s")
        answer = {
            "status": "stuck" if troubles else "ok",
            "troubles": troubles,
            "eventLoop": {"silentSeconds": round(silence, 3), "blocks": blocks, "longestBlockSeconds": round(longest, 3)},
            "workers": {name: _on_the_wire(worker) for name, worker in self.workers.items()},
        }
        return not troubles, answer


def _on_the_wire(worker: WorkerHealth) -> dict[str, Any]:
    found = asdict(worker)
    seconds = {name for name in found if name.startswith("since_")}
    return {
        f"{to_camel(name.replace('since_', 'seconds_since_'))}": round(value, 3) if name in seconds else value
        for name, value in found.items()
    }


Look = Callable[[], Mapping[str, WorkerHealth]]
