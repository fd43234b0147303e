"""The janitor's rules over any history that the protocol allows: what compaction leaves says the same as all that was written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.janitor import Inquiry, Keeper, KeyRemoved, LeaseRepeated
from headrace.core.ownership import NO_OFFSET, Version
from headrace.core.records import (
    lease_key,
    lease_name,
    parse_removal,
    parse_snapshot_headers,
    source_header,
    status_header,
    version_header,
)
from headrace.engine.tidying import inquire_into, read_into, record_of, removal_of, repeats_of
from headrace.ports import NewRecord, Record, TopicPartition
from headrace.testing.simulation.reading import StateReader
from headrace.testing.storage import StoredPartition, StoredRecord

WORKER = "w"
INSTANCES = ("one", "two", "three")
JOBS = (0, 1, 2)
MOST = 1_000


@dataclass
class Holder:
    """Who won a claim, and what it knows of the jobs: their attempts and sequences by offset, and those that have ended."""

    lease: str
    epoch: int
    jobs: dict[int, tuple[int, int]] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    released: bool = False


class History:
    """A partition of `job-state` with the lease and the jobs of one job partition; time is counted in records."""

    def __init__(self) -> None:
        self.log = StoredPartition(TopicPartition("job-state", 0))
        self.full = StateReader(WORKER)
        self.won: list[Holder] = []
        self.claims: Counter[str] = Counter()
        self.seen = [NO_OFFSET]
        self.keeper = Keeper()
        self.position = 0
        self.starts = {(WORKER, 0): 0}

    def write(self, *records: NewRecord) -> list[StoredRecord]:
        first = self.log.append(records, [self.log.end] * len(records))
        written = [record for record in self.log.records if record.offset >= first]
        for record in written:
            self.full.read(record)
        return written

    # --- engines ---

    def lease(self, kind: str, name: str, **fields: object) -> StoredRecord:
        value = {"schemaVersion": 1, "kind": kind, "workerName": WORKER, "partition": 0, "instanceId": name, **fields}
        [record] = self.write(NewRecord(lease_key(WORKER, 0, name), orjson.dumps(value)))
        return record

    def claim(self, instance: str, previous: int) -> None:
        self.claims[instance] += 1
        name = lease_name(instance, self.claims[instance])
        record = self.lease("claim", name, previous=previous, termSeconds=25.0)
        if self.full.ledgers[0].epoch == record.offset:
            before = self.won[-1] if self.won else None
            self.won.append(Holder(name, record.offset))
            if before is not None:  # it has read everything
                self.won[-1].jobs = {place[1]: state.version[1:] for place, state in self.full.jobs.items()}
                self.won[-1].ended = {place[1] for place, state in self.full.jobs.items() if state.has_ended}
        self._see(record)

    def renew(self, holder: Holder) -> None:
        self._see(self.lease("renewal", holder.lease, epoch=holder.epoch, previous=holder.epoch, termSeconds=25.0))

    def release(self, holder: Holder) -> None:
        holder.released = True
        self._see(self.lease("release", holder.lease, epoch=holder.epoch, reason="stopped"))

    def _see(self, record: StoredRecord) -> None:
        if self.full.ledgers[0].last_lease == record.offset:
            self.seen.append(record.offset)

    def snapshot(self, holder: Holder, job: int, *, ends: bool) -> None:
        if job in holder.ended or holder.released:
            return
        attempt, sequence = holder.jobs.get(job, (0, 0))
        known = any(place == (0, job) and state.version.epoch == holder.epoch for place, state in self.full.jobs.items())
        attempt, sequence = (attempt, sequence + 1) if known or ends else (attempt + 1, 1)
        holder.jobs[job] = attempt, sequence
        if ends:
            holder.ended.add(job)
        status = "completed" if ends else "running"
        headers = (source_header(WORKER, 0, job), version_header(Version(holder.epoch, attempt, sequence)), status_header(status))
        self.write(NewRecord(b"job-%d" % job, b"{}", headers))

    # --- the janitor ---

    def read_on(self) -> None:
        records = [record for record in self.log.records if record.offset >= self.position]
        read_into(self.keeper, records, lambda _: 0.0)
        self.position = self.log.end

    def tidy(self, *, looks_into: bool = True) -> None:
        """Writes what is to be written, by what was read so far."""
        self.write(*(record_of(due, self.position) for due in self.keeper.due(0.0)))
        if looks_into and (suspects := self.keeper.suspects(0.0, MOST)):
            inquiry: Inquiry[Record] = Inquiry(suspects)
            inquire_into(inquiry, self.log.records)
            repeats, removals = inquiry.repeats(self.starts), inquiry.removals(self.starts)
            self.write(*repeats_of(repeats), *map(removal_of, removals))
            written = {key: winner.version for key, winner in repeats.items()}
            written |= {each.key: each.removal.version for each in removals if each.removal is not None}
            self.keeper.settle(suspects, written)

    def compact(self, end: int) -> None:
        """Leaves the newest record of each key, of all below an offset."""
        self.log.compact(end - 1, tombstones=False)

    def left(self) -> StateReader:
        """What a reader makes of what is left."""
        reader = StateReader(WORKER)
        for record in self.log.records:
            reader.read(record)
        return reader

    def assert_agreed(self) -> None:
        short, full = self.left(), self.full
        for place, state in full.jobs.items():
            found = short.jobs.get(place)
            assert found is not None, f"job {place} is forgotten"
            assert (found.version, found.status) == (state.version, state.status)
        assert short.jobs.keys() == full.jobs.keys()
        if (known := full.ledgers.get(0)) is not None and known.holder is not None:
            rest = short.ledgers[0]
            assert (rest.epoch, rest.last_lease, rest.holder) == (known.epoch, known.last_lease, known.holder)
            assert rest.released == known.released


MOVES = (
    "claim",
    "claim",
    "renew",
    "release",
    "snapshot",
    "snapshot",
    "snapshot",
    "end",
    "late",
    "late",
    "read",
    "tidy",
    "compact",
)


@given(st.data())
def test_what_compaction_leaves_says_the_same_as_everything(data: st.DataObject) -> None:
    history = History()
    for _ in range(data.draw(st.integers(0, 40), label="moves")):
        holders = [holder for holder in history.won if not holder.released]
        match data.draw(st.sampled_from(MOVES)):
            case "claim":
                knows = data.draw(st.integers(0, 3)) > 0
                previous = history.seen[-1] if knows else data.draw(st.sampled_from(history.seen))
                history.claim(data.draw(st.sampled_from(INSTANCES)), previous)
            case "renew" if history.won:
                history.renew(history.won[-1])
            case "release" if history.won:
                history.release(history.won[-1])
            case "snapshot" | "end" as move if holders and holders[-1] is history.won[-1]:
                history.snapshot(holders[-1], data.draw(st.sampled_from(JOBS)), ends=move == "end")
            case "late" if holders:
                late = data.draw(st.sampled_from(holders))
                if data.draw(st.booleans()):
                    history.snapshot(late, data.draw(st.sampled_from(JOBS)), ends=data.draw(st.booleans()))
                else:
                    history.renew(late)
            case "read":
                history.read_on()
            case "tidy":
                history.tidy()
            case "compact":
                # Compaction is an hour late, and the janitor is not.
                history.read_on()
                read = history.position
                history.tidy()
                history.compact(read)
                history.assert_agreed()
    history.read_on()
    history.tidy()
    history.compact(history.position)
    history.assert_agreed()


@given(st.data())
def test_it_comes_to_an_end(data: st.DataObject) -> None:
    """Of two janitors that know nothing of each other, too: when nobody else writes, neither finds anything to do."""
    history, other = History(), History()
    other.log, other.full, other.starts = history.log, history.full, history.starts
    for _ in range(data.draw(st.integers(1, 12))):
        previous = data.draw(st.sampled_from(history.seen))
        history.claim(data.draw(st.sampled_from(INSTANCES)), previous)
        for holder in history.won[-2:]:
            history.snapshot(holder, data.draw(st.sampled_from(JOBS)), ends=data.draw(st.booleans()))
        if data.draw(st.booleans()):
            data.draw(st.sampled_from((history, other))).read_on()
            data.draw(st.sampled_from((history, other))).tidy()
    for _ in range(6):
        for janitor in (history, other):
            janitor.read_on()
            janitor.tidy()
    end = history.log.end
    for janitor in (history, other):
        janitor.read_on()
        janitor.tidy()
    assert history.log.end == end
    last = {record.key: record for record in history.log.records}
    for (_, job), state in history.full.jobs.items():
        headers = parse_snapshot_headers(last[b"job-%d" % job].headers)
        assert headers is not None and headers.version == state.version


# --- one by one ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def history() -> History:
    """A frozen holder, of whose two jobs its successor has ended the first, and the last words of the frozen one."""
    history = History()
    history.claim("one", NO_OFFSET)
    frozen = history.won[0]
    history.snapshot(frozen, 0, ends=False)
    history.claim("two", history.seen[-1])
    history.snapshot(history.won[1], 0, ends=True)
    history.snapshot(frozen, 0, ends=True)
    history.snapshot(frozen, 1, ends=False)
    history.read_on()
    return history


def test_a_winner_under_a_void_record_is_written_again(history: History) -> None:
    history.tidy()
    last = history.log.records[-2]
    headers = parse_snapshot_headers(last.headers)
    assert headers is not None and headers.repeated
    assert (last.key, headers.version, headers.status) == (b"job-0", Version(history.won[1].epoch, 1, 2), "completed")


def test_a_void_record_without_a_winner_is_removed(history: History) -> None:
    history.tidy()
    last = history.log.records[-1]
    assert (last.key, last.value) == (b"job-1", None)
    removal = parse_removal(last.headers)
    assert removal is not None and (removal.reason, removal.version) == ("void", Version(history.won[0].epoch, 1, 1))


def test_what_was_written_by_the_janitor_is_not_looked_into_again(history: History) -> None:
    history.tidy()
    end = history.log.end
    history.read_on()
    assert history.keeper.suspects(0.0, MOST) == []
    history.tidy()
    assert history.log.end == end


def test_a_repeat_that_overtakes_a_newer_snapshot_is_followed_by_another(history: History) -> None:
    suspects = history.keeper.suspects(0.0, MOST)
    inquiry: Inquiry[Record] = Inquiry(suspects)
    inquire_into(inquiry, history.log.records)
    history.claim("three", history.seen[-1])
    history.won[-1].ended.clear()
    history.won[-1].released = False
    history.snapshot(history.won[-1], 0, ends=False)
    history.write(*repeats_of(inquiry.repeats({})))
    history.keeper.settle(suspects, {b"job-0": inquiry.repeats({})[b"job-0"].version})
    history.read_on()
    history.tidy()
    last = {record.key: record for record in history.log.records}[b"job-0"]
    headers = parse_snapshot_headers(last.headers)
    assert headers is not None and headers.version.epoch == history.won[-1].epoch


def test_the_snapshots_of_a_job_whose_record_is_deleted_are_removed_and_not_repeated(history: History) -> None:
    history.starts = {(WORKER, 0): 2}
    history.tidy()
    assert [record.value for record in history.log.records[-2:]] == [None, None]
    removals = {record.key: parse_removal(record.headers) for record in history.log.records[-2:]}
    assert removals[b"job-0"] is not None and removals[b"job-0"].reason == "ended"


def test_leases_of_superseded_epochs_are_removed_and_what_holds_stays(history: History) -> None:
    history.tidy()
    removed = [record.key for record in history.log.records if record.value is None]
    assert lease_key(WORKER, 0, "one") in removed
    assert lease_key(WORKER, 0, "two") not in removed


def test_a_lease_under_a_void_record_is_repeated(history: History) -> None:
    """A renewal lands after the release of its own claim."""
    holder = history.won[1]
    history.release(holder)
    released_at = history.seen[-1]
    history.renew(holder)
    history.read_on()
    history.tidy()
    last = {record.key: record for record in history.log.records}[lease_key(WORKER, 0, "two")]
    raw = orjson.loads(last.value or b"")
    assert (raw["kind"], raw["epoch"], raw["lastLease"], raw["released"]) == ("repeat", holder.epoch, released_at, True)
    history.compact(history.log.end)
    rest = history.left().ledgers[0]
    assert (rest.epoch, rest.last_lease, rest.holder, rest.released) == (holder.epoch, released_at, "two", True)


def test_what_a_void_claim_hides_is_written_again() -> None:
    """A renewal that the loser did not know of makes its claim void, and the next one takes that away, but not yet the claim."""
    history = History()
    history.claim("one", NO_OFFSET)
    [holder] = history.won
    history.snapshot(holder, 0, ends=True)
    history.renew(holder)
    history.claim("two", holder.epoch)
    history.snapshot(holder, 1, ends=True)
    history.snapshot(holder, 2, ends=False)
    history.renew(holder)
    history.read_on()
    end = history.log.end
    history.tidy()
    repeated = [record.key for record in history.log.records if record.offset >= end and record.headers]
    assert sorted(repeated, key=str) == [b"job-1", b"job-2"], "what stands before the void claim is known by then"
    history.compact(end)
    history.assert_agreed()
    history.read_on()
    history.snapshot(holder, 2, ends=True)
    history.read_on()
    assert history.keeper.suspects(0.0, MOST) == [], "the void claim is gone, and hides nothing any more"


def test_what_proves_that_a_claim_is_void_need_not_be_written_again() -> None:
    """The loser knew of no claim of the holder: that one's epoch says so, whatever compaction takes away."""
    history = History()
    history.claim("one", NO_OFFSET)
    [holder] = history.won
    history.claim("two", NO_OFFSET)
    history.snapshot(holder, 0, ends=True)
    history.renew(holder)
    history.read_on()
    assert history.keeper.suspects(0.0, MOST) == []
    end = history.log.end
    history.tidy()
    history.compact(end)
    history.assert_agreed()


def test_a_void_claim_of_the_holder_covers_nothing_of_its_own_valid_one() -> None:
    """It claimed anew since it did not know whether its renewal had landed, and that landed between."""
    history = History()
    history.claim("one", NO_OFFSET)
    [holder] = history.won
    history.renew(holder)
    history.claim("one", holder.epoch)
    history.snapshot(holder, 0, ends=False)
    assert history.won == [holder]
    history.compact(history.log.end)
    history.assert_agreed()


def test_what_came_a_moment_ago_is_left_alone() -> None:
    keeper = Keeper()
    history = History()
    history.claim("one", NO_OFFSET)
    history.claim("two", NO_OFFSET)
    read_into(keeper, history.log.records, lambda _: 100.0)
    assert list(keeper.due(99.0)) == []
    removed, repeated = keeper.due(100.0)
    assert removed == KeyRemoved(lease_key(WORKER, 0, "two"))
    assert isinstance(repeated, LeaseRepeated), "who reads the log without what made the other void is told"
