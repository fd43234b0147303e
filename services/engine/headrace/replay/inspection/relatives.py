"""The jobs around one: those that it enqueued, those that do it anew, and those that it does anew."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, Final, Literal, NamedTuple

from headrace.core.identifiers import made_at
from headrace.core.status import JobStatus
from headrace.core.timestamps import format_timestamp
from headrace.ports import Log, LogReader, Record, TopicPartition
from headrace.reading import batches_between
from headrace.replay.history import DAMAGED, RecordedJob, Span
from headrace.replay.recorded.finding import Trail, mention_of, mentions, records_of_job
from headrace.replay.recorded.folding import Place, place_of
from headrace.replay.recorded.joining import Accepted, States
from headrace.replay.recorded.layout import Layout, Part
from headrace.replay.recorded.refused import refused_job
from headrace.replay.recorded.scanning import reading, side_by_side
from headrace.replay.recorded.spans import AHEAD_MILLISECONDS, ALL_TIME, bounds_of

EARLIER_MILLISECONDS: Final = AHEAD_MILLISECONDS
"""So much before a job others' records of it are looked for: its caller's clock may be so far ahead of theirs."""
_NAMES_A_RETRIED_JOB: Final = b'"retryOf"'

Relation = Literal["child", "retry", "retried"]


@dataclass(frozen=True, slots=True)
class Relative:
    """A job that another one enqueued (`child`), or that does it anew, by itself or by its retries (`retry`), or that it does
    anew (`retried`).
    """

    relation: Relation
    job: RecordedJob

    @property
    def status(self) -> str:
        """As it stands now; `damaged` where the newest record of it cannot be read."""
        if self.job.damaged:
            return DAMAGED
        return str(self.job.snapshot["status"] if self.job.snapshot is not None else JobStatus.QUEUED)

    @property
    def retry_of(self) -> str | None:
        """The id of the job that it does anew itself."""
        found = self.job.record.get("retryOf")
        return None if found is None else str(found)

    def to_wire(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "relation": self.relation,
            "id": self.job.id,
            "workerName": self.job.record["workerName"],
            "status": self.status,
            **({} if self.retry_of is None else {"retryOf": self.retry_of}),
            "acceptedAt": format_timestamp(self.job.accepted_at),
            "topic": self.job.source.topic,
            "partition": self.job.source.partition,
            "offset": self.job.offset,
        }


class _Link(NamedTuple):
    """When a job was accepted, where its record stands, and what it does anew. The first of several is the oldest."""

    at: int

    job_id: str
    retry_of: str | None
    queue: TopicPartition
    offset: int


def _link(record: Record, raw: Mapping[str, Any]) -> _Link:
    return _Link(record.timestamp, raw["id"], raw.get("retryOf"), TopicPartition(record.topic, record.partition), record.offset)


async def relatives_of(log: Log, trail: Trail) -> list[Relative]:
    """All jobs of a chain of retries but the job itself, from the first to the last; between them the job's children, by their
    times. They may be of any worker.

    The log is read once, however long the chain is, and, where the first job of the chain has an id that does not tell its time,
    once more.

    Raises BrokerError.
    """
    job, layout = trail.job, trail.layout
    retried = job.record.get("retryOf")
    since = Span(max(0, min(job.accepted_at, _made_at(retried, job)) - EARLIER_MILLISECONDS), ALL_TIME.end)
    async with reading(log) as reader:
        bounds = await bounds_of(reader, layout.queues, since)
    found: list[tuple[Relation, _Link]] = []
    retries: dict[str, list[_Link]] = {}
    async with aclosing(mentions(log, layout, bounds, mention_of(job.id), _NAMES_A_RETRIED_JOB)) as named:
        async for record, raw in named:
            link = _link(record, raw)
            if raw.get("parentId") == job.id:
                found.append(("child", link))
            elif link.retry_of is not None:
                retries.setdefault(link.retry_of, []).append(link)
    later = list(_following(retries, job.id))
    earlier = [] if retried is None else await _before(log, layout, retries, job)
    found += [("retry", link) for link in later]
    found += [("retried", link) for link in earlier]
    before, following = [link.job_id for link in reversed(earlier)], [link.job_id for link in later]
    told = _each_once([relative async for relative in _as_they_stand(log, layout, found)])
    # A chain has its own order, whatever the clocks of those said who accepted its jobs.
    children = sorted((each.job.accepted_at, each.job.id) for each in told.values() if each.relation == "child")
    order = dict.fromkeys([*before, *(job_id for _, job_id in children), *following])
    return [told[job_id] for job_id in order if job_id in told]


def _made_at(retried: str | None, job: RecordedJob) -> int:
    """When the first job of a chain was made at the earliest, in milliseconds since the Unix epoch."""
    if retried is None:
        return job.accepted_at
    # A job with a fresh id is nobody's retry: it is the first.
    return made_at(retried) or 0


def _following(retries: Mapping[str, list[_Link]], job_id: str) -> Iterator[_Link]:
    """All that do a job anew, or another one of these: each behind the one that it does anew, and else by their times."""
    # In the order of time, and not in that in which readers side by side have found them.
    seen, waiting = {job_id}, sorted(retries.get(job_id, ()))
    while waiting:
        link = heappop(waiting)
        if link.job_id == job_id:
            continue
        yield link
        # One whose request was made again has several records.
        if link.job_id not in seen:
            seen.add(link.job_id)
            for each in retries.get(link.job_id, ()):
                if each.job_id not in seen:
                    heappush(waiting, each)


async def _before(log: Log, layout: Layout, retries: Mapping[str, list[_Link]], job: RecordedJob) -> list[_Link]:
    """All that a job does anew, as far as their records are left; the first of the chain last."""
    by_id: dict[str, list[_Link]] = {}
    for link in (link for links in retries.values() for link in links):
        by_id.setdefault(link.job_id, []).append(link)
    found: list[_Link] = []
    seen, wanted = {job.id}, job.record.get("retryOf")
    while wanted is not None and wanted not in seen:
        seen.add(wanted)
        links = sorted(by_id.get(wanted, ()))
        if not links:
            # The first of the chain does none anew: its record was not among those that were looked for.
            return [*found, *(_link(record, {"id": wanted}) for record in await records_of_job(log, layout, wanted))]
        found += links
        wanted = links[0].retry_of
    return found


async def _as_they_stand(log: Log, layout: Layout, links: list[tuple[Relation, _Link]]) -> AsyncGenerator[Relative]:
    by_part: dict[Part, list[tuple[Relation, _Link]]] = {}
    for relation, link in links:
        part = next(part for part in layout.parts if link.queue in part.queues)
        by_part.setdefault(part, []).append((relation, link))

    async def read(reader: LogReader, part: Part) -> AsyncGenerator[Relative]:
        entries: dict[Place, Accepted] = {}
        relations: dict[Place, Relation] = {}
        for relation, link in by_part[part]:
            worker = layout.worker_of(link.queue)
            place = place_of(worker, link.queue.partition, link.offset)
            async with aclosing(batches_between(reader, {link.queue: (link.offset, link.offset + 1)})) as batches:
                async for _, records in batches:
                    entries[place], relations[place] = Accepted(worker, link.queue, records[0]), relation
        if part.state is not None and entries:
            first = min(entry.record.timestamp for entry in entries.values())
            await States(entries, {}, {}, Span(first, first + 1)).read(reader, part.state)
        for place, entry in entries.items():
            if (recorded := entry.recorded() or refused_job(entry)) is not None:
                yield Relative(relations[place], recorded)

    async with aclosing(side_by_side(log, list(by_part), read)) as relatives:
        async for each in relatives:
            yield each


def _each_once(relatives: list[Relative]) -> dict[str, Relative]:
    """Of several records of one job one is done, and the others are passed over."""
    chosen: dict[str, Relative] = {}
    for each in sorted(relatives, key=lambda each: each.job.accepted_at):
        known = chosen.get(each.job.id)
        if known is None or (_has_begun(each) and not _has_begun(known)):
            chosen[each.job.id] = each
    return chosen


def _has_begun(relative: Relative) -> bool:
    return relative.job.damaged or relative.job.snapshot is not None
