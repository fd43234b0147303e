"""What can go wrong with a write: plain methods by which a test, or a simulation, makes it so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from headrace.errors import BrokerError, HeadraceError
from headrace.ports import NewRecord, TopicPartition

Matching = Callable[[NewRecord], bool]


class Hold:
    """What a fault holds back, until it is released."""

    def __init__(self) -> None:
        self._held: list[Callable[[], None]] = []
        self._caught = 0
        self._more = asyncio.Event()
        self.released = False

    @property
    def count(self) -> int:
        """How many batches are held now."""
        return len(self._held)

    async def caught(self, count: int = 1) -> None:
        """Waits until so many batches were held back."""
        while self._caught < count:
            self._more.clear()
            await self._more.wait()

    def release(self) -> None:
        """Lets everything go, in the order in which it came, and holds nothing back from now on."""
        self.released = True
        held, self._held = self._held, []
        for go_on in held:
            asyncio.get_running_loop().call_soon(go_on)

    def catch(self, go_on: Callable[[], None]) -> None:
        """Holds back one batch; `go_on` is called at the release."""
        self._held.append(go_on)
        self._caught += 1
        self._more.set()


class Fault(Enum):
    """What may happen to a batch."""

    REFUSED = auto()
    HELD = auto()
    LANDS_LATE = auto()
    ACKNOWLEDGEMENT_LOST = auto()
    ACKNOWLEDGEMENT_HELD = auto()


@dataclass(slots=True)
class Rule:
    """That batches for a topic, or for one of its partitions, meet a fault.

    Attributes:
        matching: which record a batch must have; None for any.
        left: how many batches still do; None for all to come.
    """

    fault: Fault
    topic: str
    partition: int | None
    left: int | None
    reason: HeadraceError
    hold: Hold
    matching: Matching | None

    def applies(self, fault: Fault, target: TopicPartition, records: Sequence[NewRecord]) -> bool:
        return (
            self.fault is fault
            and self.topic == target.topic
            and self.partition in (None, target.partition)
            and self.left != 0
            and not self.hold.released
            and (self.matching is None or any(map(self.matching, records)))
        )


class Faults:
    """Makes writes go wrong. A batch is what one writer has gathered for one partition; `times` counts batches, None is all.

    With `partition` or `matching` a fault meets only batches for that partition, or with at least one such record.

    What waits in the writer behind a batch that fails, fails too, as `LogWriter` has it.
    """

    def __init__(self) -> None:
        self._rules: list[Rule] = []

    def refuse_appends(
        self,
        topic: str,
        reason: HeadraceError | None = None,
        *,
        partition: int | None = None,
        matching: Matching | None = None,
        times: int | None = 1,
    ) -> None:
        """The next batches are not written, and their writers are told so for certain."""
        self._add(Fault.REFUSED, (topic, partition, matching), times, reason)

    def lose_acknowledgements(
        self,
        topic: str,
        reason: HeadraceError | None = None,
        *,
        partition: int | None = None,
        matching: Matching | None = None,
        times: int | None = 1,
    ) -> None:
        """The next batches are written, and their writers are told that they may have failed."""
        self._add(Fault.ACKNOWLEDGEMENT_LOST, (topic, partition, matching), times, reason)

    def land_late(
        self,
        topic: str,
        reason: HeadraceError | None = None,
        *,
        partition: int | None = None,
        matching: Matching | None = None,
        times: int | None = 1,
    ) -> Hold:
        """The writers of the next batches are told that these may have failed; they are written at the release."""
        return self._add(Fault.LANDS_LATE, (topic, partition, matching), times, reason)

    def hold_appends(self, topic: str, *, partition: int | None = None, matching: Matching | None = None) -> Hold:
        """Batches are on their way, neither written nor answered, until the release."""
        return self._add(Fault.HELD, (topic, partition, matching), None, None)

    def hold_acknowledgements(self, topic: str, *, partition: int | None = None, matching: Matching | None = None) -> Hold:
        """Batches are written, and their writers hear of it at the release."""
        return self._add(Fault.ACKNOWLEDGEMENT_HELD, (topic, partition, matching), None, None)

    def end_faults(self) -> None:
        """Nothing goes wrong any more. What is held back is released."""
        rules, self._rules = self._rules, []
        for rule in rules:
            rule.left = 0
            rule.hold.release()

    def meets(self, fault: Fault, target: TopicPartition, records: Sequence[NewRecord]) -> Rule | None:
        """The rule by which a batch for the target meets the fault now, or None. Counts it."""
        for rule in self._rules:
            if rule.applies(fault, target, records):
                if rule.left is not None:
                    rule.left -= 1
                return rule
        return None

    def _add(
        self, fault: Fault, what: tuple[str, int | None, Matching | None], times: int | None, reason: HeadraceError | None
    ) -> Hold:
        self._rules = [rule for rule in self._rules if rule.left != 0 and not rule.hold.released]
        topic, partition, matching = what
        failure = reason or BrokerError(f"{topic}: the cluster in memory did not take a batch.")
        rule = Rule(fault, topic, partition, times, failure, Hold(), matching)
        self._rules.append(rule)
        return rule.hold
