"""A batch on its way to the cluster, what it meets there, and the answer on its way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from headrace.errors import BrokerError, HeadraceError
from headrace.ports import Acknowledged, AppendFailed, NewRecord, Outcome, TopicPartition
from headrace.testing.cluster import InMemoryCluster
from headrace.testing.faults import Fault, Faults, Rule
from headrace.testing.link import Link


class Batch(Protocol):
    """Records with the times of their writer; `size` is in bytes."""

    @property
    def records(self) -> Sequence[NewRecord]: ...
    @property
    def timestamps(self) -> Sequence[int]: ...
    @property
    def size(self) -> int: ...


class Delivery:
    """It goes its way whatever becomes of the writer that sent it.

    Args:
        faults: whose faults the batch meets, the first of them first.
        answered: called when the answer has come back; its timestamp is -1 where the records keep those of their writer.
    """

    def __init__(
        self,
        cluster: InMemoryCluster,
        link: Link,
        faults: Sequence[Faults],
        target: TopicPartition,
        batch: Batch,
        answered: Callable[[Outcome], None],
    ) -> None:
        self._cluster = cluster
        self._link = link
        self._faults = faults
        self._target = target
        self._batch = batch
        self._answered = answered

    def send(self) -> None:
        self._link.send(self._arrive)

    def _arrive(self) -> None:
        if rule := self._meets(Fault.HELD):
            rule.hold.catch(self._go_on)
        else:
            self._go_on()

    def _go_on(self) -> None:
        if rule := self._meets(Fault.REFUSED):
            self._answer(AppendFailed(rule.reason, may_land=False))
        elif rule := self._meets(Fault.LANDS_LATE):
            rule.hold.catch(self._land_unheard)
            self._answer(AppendFailed(rule.reason))
        else:
            self._acknowledge(self._land())

    def _acknowledge(self, outcome: Outcome) -> None:
        if isinstance(outcome, AppendFailed):
            self._answer(outcome)
        elif rule := self._meets(Fault.ACKNOWLEDGEMENT_LOST):
            self._answer(AppendFailed(rule.reason))
        elif rule := self._meets(Fault.ACKNOWLEDGEMENT_HELD):
            rule.hold.catch(partial(self._answer, outcome))
        else:
            self._answer(outcome)

    def _land_unheard(self) -> None:
        self._land()

    def _land(self) -> Outcome:
        batch = self._batch
        try:
            topic = self._cluster.topic(self._target.topic)
            if batch.size > topic.largest_batch:
                raise BrokerError(f"{self._target.topic}: a batch of {batch.size} bytes is larger than the topic takes.")
            # Where the time of the cluster counts, the whole batch has one.
            appended_at = self._cluster.now() if topic.keeps_append_time else -1
            timestamps = [appended_at] * len(batch.records) if topic.keeps_append_time else batch.timestamps
            offset = self._cluster.write(self._target, batch.records, timestamps)
        except HeadraceError as error:
            return AppendFailed(error, may_land=False)
        return Acknowledged(offset, appended_at)

    def _answer(self, outcome: Outcome) -> None:
        self._link.answer(partial(self._answered, outcome))

    def _meets(self, fault: Fault) -> Rule | None:
        return next(filter(None, (faults.meets(fault, self._target, self._batch.records) for faults in self._faults)), None)
