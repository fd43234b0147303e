"""What may start: order by key within a lane, side by side across lanes, as many as there are slots."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar


class Queued(Protocol):
    """A job that waits. Jobs with an equal `lane` run one after another; one without a lane (None) waits for nobody."""

    @property
    def lane(self) -> Hashable | None: ...


QueuedT = TypeVar("QueuedT", bound=Queued)


class Lanes(Generic[QueuedT]):
    """The waiting jobs of one worker in one engine.

    A job takes a slot from `take` to `free_slot`, and its lane from `take` to `leave_lane`: the slot is free as soon as its
    work is over, the lane only when its end is acknowledged, so that the next job of the key cannot be ahead of it in the log.

    Args:
        slots: how many jobs may run at a time.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.taken = 0
        self._ready: deque[QueuedT] = deque()
        # A lane is in this table while one of its jobs is ready or has been taken; the deque holds those behind it.
        self._behind: dict[Hashable, deque[QueuedT] | None] = {}

    def __len__(self) -> int:
        return len(self._ready) + sum(len(behind) for behind in self._behind.values() if behind)

    def add(self, job: QueuedT) -> bool:
        """Appends a job; those of one lane must come in the order of the log.

        Tells whether it waits for a slot alone; else it waits for another of its lane, until `leave_lane` returns it.
        """
        lane = job.lane
        if lane is None:
            self._ready.append(job)
        elif lane not in self._behind:
            self._behind[lane] = None
            self._ready.append(job)
        else:
            behind = self._behind[lane]
            if behind is None:
                behind = self._behind[lane] = deque()
            behind.append(job)
            return False
        return True

    def reserve(self, job: QueuedT) -> bool:
        """A job that may not start yet gets its lane, and keeps it until `leave_lane`; `put_back` makes it ready.

        False, and nothing changed, if the lane is another's: then it is to be added behind that.
        """
        if job.lane is not None:
            if job.lane in self._behind:
                return False
            self._behind[job.lane] = None
        return True

    def take(self) -> QueuedT | None:
        """The next job that may start, which takes a slot; None while all slots are taken or nothing is ready."""
        if self.taken >= self.slots or not self._ready:
            return None
        self.taken += 1
        return self._ready.popleft()

    def put_back(self, job: QueuedT) -> None:
        """A job that has its lane, and no slot, is to start: one that was taken before, or that was reserved. It goes first."""
        self._ready.appendleft(job)

    def remove(self, job: QueuedT) -> bool:
        """A job that waits starts no more. Tells whether it was the next of its lane, which it then keeps until `leave_lane`."""
        behind = None if job.lane is None else self._behind.get(job.lane)
        if behind and job in behind:
            behind.remove(job)
            return False
        self._ready.remove(job)
        return True

    def free_slot(self) -> None:
        """The work of a job that was taken is over."""
        self.taken -= 1

    def leave_lane(self, job: QueuedT) -> QueuedT | None:
        """The end of a job that was taken is acknowledged: the next of its lane becomes ready, and is returned."""
        lane = job.lane
        if lane is None:
            return None
        behind = self._behind.get(lane)
        if behind:
            follower = behind.popleft()
            self._ready.append(follower)
            return follower
        self._behind.pop(lane, None)
        return None

    def drop(self, is_dropped: Callable[[QueuedT], bool]) -> None:
        """Forgets waiting jobs, for example those of a partition that was lost. Lanes are of one partition: they go whole.

        Jobs that were taken are the caller's to end, by `free_slot` and `leave_lane`.
        """
        dropped = {job.lane for job in self._ready if job.lane is not None and is_dropped(job)}
        self._ready = deque(job for job in self._ready if not is_dropped(job))
        for lane, behind in self._behind.items():
            if behind and is_dropped(behind[0]):
                self._behind[lane] = None
        for lane in dropped:
            del self._behind[lane]
