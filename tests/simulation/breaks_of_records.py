"""Ways to break what is told of jobs that have ended, and what compaction leaves: `ended-keys` and the janitor."""

from __future__ import annotations

import itertools
from typing import Any

from headrace.core.duplicates import DerivedIds, Verdict
from headrace.core.identifiers import derived_id
from headrace.core.janitor import Inquiry, Keeper
from headrace.engine import group, janitor
from headrace.engine.ended_keys import EndedKeys
from headrace.engine.endings import Endings
from headrace.engine.partition import OwnedPartition
from headrace.idempotency import Child, ChildIds
from headrace.ports import TopicPartition
from simulation.broken import Break, Patch


def e1_derived_ids_are_taken_for_fresh(patch: Patch) -> None:
    patch.setattr(group, "is_fresh", lambda _: True)


def e2_what_has_ended_is_done_again(patch: Patch) -> None:
    patch.setattr(DerivedIds, "judge", lambda *_: Verdict.NEW)


def e2_a_new_owner_does_not_read_what_has_ended(patch: Patch) -> None:

    async def learn(*_: Any) -> None:
        return None

    patch.setattr(EndedKeys, "learn", learn)


def each_attempt_enqueues_other_children(patch: Patch) -> None:
    take = ChildIds.take
    numbers = itertools.count()

    def another(self: ChildIds, *args: Any) -> Child:
        child = take(self, *args)
        return child._replace(id=derived_id("child", child.id, str(next(numbers))))

    patch.setattr(ChildIds, "take", another)


def k3_passes_before_the_entry(patch: Patch) -> None:
    original = Endings.write

    def write(self: Endings, work: Any) -> None:
        original(self, work)
        work.partition.let_go(work.offset)

    patch.setattr(Endings, "write", write)


def k3_a_new_owner_takes_the_entry_for_written(patch: Patch) -> None:
    def sort_out(self: OwnedPartition, ended: Any) -> None:
        self.ended_before.update((offset, job.job_id) for offset, job in ended.items())

    patch.setattr(OwnedPartition, "_sort_out", sort_out)


def j1_nothing_is_repeated(patch: Patch) -> None:
    patch.setattr(Inquiry, "repeats", lambda *_: {})


def j2_what_is_void_stays(patch: Patch) -> None:
    patch.setattr(Inquiry, "removals", lambda *_: [])
    patch.setattr(Keeper, "due", lambda *_: [])


def j3_deletes_what_is_old_whether_or_not_it_has_ended(patch: Patch) -> None:
    async def delete(_log: Any, reader: Any, topics: Any, partitions: Any, older_than: int) -> Any:
        queue = {each: TopicPartition(topics.jobs_name(each[0]), each[1]) for each in partitions}
        since = await reader.offsets_since(list(queue.values()), older_than)
        await _log.delete_records(since)
        return {each: since[name] for each, name in queue.items()}

    patch.setattr(janitor, "delete_ended", delete)


BREAKS = [
    Break("E1", e1_derived_ids_are_taken_for_fresh),
    Break("E2", e2_what_has_ended_is_done_again),
    Break("E2", e2_a_new_owner_does_not_read_what_has_ended),
    Break("a child exists once", each_attempt_enqueues_other_children),
    Break("K3", k3_passes_before_the_entry),
    Break("K3", k3_a_new_owner_takes_the_entry_for_written),
    Break("J1", j1_nothing_is_repeated),
    Break("J2", j2_what_is_void_stays),
    Break("J3", j3_deletes_what_is_old_whether_or_not_it_has_ended),
]
