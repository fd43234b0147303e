"""Consumer groups as the cluster sees them: members, generations, committed offsets."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from headrace.ports import Committed, TopicPartition


class Standing(Enum):
    """What a member hears when it says that it lives."""

    MEMBER = auto()
    REBALANCE = auto()
    UNKNOWN = auto()


class Participant(Protocol):
    """A member's own side."""

    @property
    def topic(self) -> str: ...
    @property
    def session_timeout(self) -> float: ...
    def hear(self) -> None:
        """The group has something to say: the next sign of life is due now."""

    def receive(self, generation: int, partitions: frozenset[TopicPartition]) -> None:
        """The group has dealt out its partitions."""


@dataclass(slots=True, eq=False)
class _Member:
    participant: Participant
    joined: bool
    last_seen: float
    generation: int = -1
    owned: frozenset[TopicPartition] = frozenset()
    session: asyncio.TimerHandle | None = None


class Group:
    """One consumer group. Every change revokes all partitions of all members, and deals them out anew (eager, sticky).

    A change waits for every member to join again, at most for its session timeout; who does not is taken for dead.

    Args:
        partitions_of: the partitions of a topic.
        context: in which its timers run; those of whichever member called would end with it.
        stored: called with what is committed.

    Attributes:
        generation: counts the assignments.
        committed: by partition.
        rebalancing: whether members are being waited for.
    """

    def __init__(
        self,
        partitions_of: Callable[[str], Sequence[TopicPartition]],
        context: contextvars.Context,
        stored: Callable[[Mapping[TopicPartition, Committed]], None],
    ) -> None:
        self._partitions_of = partitions_of
        self._context = context
        self._stored = stored
        self._members: dict[str, _Member] = {}
        # Taken for dead, and not to be told until the test says so.
        self._untold: set[str] = set()
        self._deadline: asyncio.TimerHandle | None = None
        self.generation = 0
        self.rebalancing = False
        self.committed: dict[TopicPartition, Committed] = {}

    def members(self) -> dict[str, frozenset[TopicPartition]]:
        return {name: member.owned for name, member in self._members.items()}

    def join(self, name: str, participant: Participant) -> None:
        """A member is ready for its partitions; also one that the group did not know, or knows no more."""
        member = self._members.get(name)
        now = asyncio.get_running_loop().time()
        if member is None:
            self._untold.discard(name)
            member = self._members[name] = _Member(participant, joined=False, last_seen=now)
            self._watch_session(name, member, participant.session_timeout)
        if not self.rebalancing and member.generation == self.generation and member.joined:
            # Said twice: it has its part already, and the answer is under way.
            participant.receive(self.generation, member.owned)
            return
        if not self.rebalancing:
            self._begin()
        member.joined = True
        member.last_seen = now
        self._complete_when_all_joined()

    def leave(self, name: str) -> None:
        """A member goes, or is taken for dead: the others share what it had."""
        member = self._members.pop(name, None)
        if member is None:
            return
        if member.session is not None:
            member.session.cancel()
        if not self._members:
            self._end_rebalance()
        elif self.rebalancing:
            self._complete_when_all_joined()
        else:
            self._begin()

    def evict(self, name: str) -> None:
        """Takes a member for dead, and does not tell it before `tell`, or its next commit.

        One that has nothing, be it that it was given nothing or has just given it back, has nothing that it could commit: it
        hears of it as a real one does, by its next heartbeat.
        """
        if (member := self._members.get(name)) is not None:
            if member.owned and not (self.rebalancing and member.joined):
                self._untold.add(name)
            self.leave(name)

    def tell(self, name: str) -> None:
        """An evicted member hears of it with its next sign of life."""
        self._untold.discard(name)

    def sign_of_life(self, name: str) -> Standing:
        """A member says that it lives, and hears how it stands with the group."""
        member = self._members.get(name)
        if member is None:
            return Standing.MEMBER if name in self._untold else Standing.UNKNOWN
        member.last_seen = asyncio.get_running_loop().time()
        return Standing.REBALANCE if self.rebalancing and not member.joined else Standing.MEMBER

    def commit(self, name: str, generation: int, offsets: Mapping[TopicPartition, Committed]) -> bool:
        """Keeps offsets, if they come from a member of the present generation. Who is none any more learns it by this."""
        member = self._members.get(name)
        if member is None:
            self.tell(name)
            return False
        if generation != self.generation or member.generation != generation:
            return False
        self.store(offsets)
        return True

    def store(self, offsets: Mapping[TopicPartition, Committed]) -> None:
        self.committed.update(offsets)
        self._stored(offsets)

    def forget_topic(self, topic: str) -> None:
        self.committed = {partition: entry for partition, entry in self.committed.items() if partition.topic != topic}

    def _begin(self) -> None:
        self.rebalancing = True
        longest = max(member.participant.session_timeout for member in self._members.values())
        self._deadline = asyncio.get_running_loop().call_later(longest, self._stop_waiting, context=self._context)
        for member in self._members.values():
            member.joined = False
        for member in list(self._members.values()):
            member.participant.hear()

    def _stop_waiting(self) -> None:
        for name in [name for name, member in self._members.items() if not member.joined]:
            self.leave(name)

    def _complete_when_all_joined(self) -> None:
        if not self.rebalancing or not all(member.joined for member in self._members.values()):
            return
        self._end_rebalance()
        self.generation += 1
        for topic in dict.fromkeys(member.participant.topic for member in self._members.values()):
            readers = {name: member for name, member in self._members.items() if member.participant.topic == topic}
            dealt = assign({name: member.owned for name, member in readers.items()}, self._partitions_of(topic))
            for name, member in readers.items():
                member.owned = dealt[name]
                member.generation = self.generation
        for member in list(self._members.values()):
            member.participant.receive(self.generation, member.owned)

    def _end_rebalance(self) -> None:
        self.rebalancing = False
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _watch_session(self, name: str, member: _Member, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        member.session = loop.call_later(seconds, self._check_session, name, member, context=self._context)

    def _check_session(self, name: str, member: _Member) -> None:
        left = member.last_seen + member.participant.session_timeout - asyncio.get_running_loop().time()
        if left <= 0:
            self.leave(name)
        else:
            self._watch_session(name, member, left)


def assign(
    owned: Mapping[str, Collection[TopicPartition]], partitions: Sequence[TopicPartition]
) -> dict[str, frozenset[TopicPartition]]:
    """Deals out partitions evenly; each member keeps of what it had as much as balance allows."""
    least, larger = divmod(len(partitions), len(owned))
    # Those that had most keep the one more that not all can have.
    by_holding = sorted(owned, key=lambda name: -len(owned[name]))
    shares = {name: least + (rank < larger) for rank, name in enumerate(by_holding)}
    free = dict.fromkeys(partitions)
    dealt: dict[str, list[TopicPartition]] = {}
    for name in owned:
        dealt[name] = [partition for partition in partitions if partition in free and partition in owned[name]][: shares[name]]
        for partition in dealt[name]:
            del free[partition]
    left = iter(free)
    for name, kept in dealt.items():
        while len(kept) < shares[name]:
            kept.append(next(left))
    return {name: frozenset(kept) for name, kept in dealt.items()}
