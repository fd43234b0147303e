"""A checkpoint and the records after it tell what all records tell."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.core.checkpoint import Checkpoint, Pointer, format_pointer, parse_pointer
from headrace.core.ownership import Version
from headrace.core.records import SnapshotHeaders
from headrace.core.recovery import PartitionRecovery
from headrace.core.status import TERMINAL
from headrace.core.watermark import Watermark

CLAIM = 10
EPOCH = CLAIM

# Which job a record is about, and how often each was written before decides how it stands: begun, begun, ended.
histories = st.lists(st.integers(0, 7), max_size=30)
Told = tuple[set[int], dict[int, tuple[bytes, object]]]


def recovery(pointer: Pointer | None = None) -> PartitionRecovery[str]:
    return PartitionRecovery("w", 0, 0, pointer)


def records(history: list[int]) -> list[tuple[int, SnapshotHeaders, str]]:
    written: dict[int, int] = {}
    made = []
    for at, offset in enumerate(history, start=CLAIM + 1):
        count = written[offset] = written.get(offset, 0) + 1
        if count <= 3:
            status = "completed" if count == 3 else "running" if count == 1 else "queued"
            made.append((at, SnapshotHeaders("w", 0, offset, Version(EPOCH, 1, count), status), f"{offset}/{count}"))
    return made


def told(of: PartitionRecovery[str]) -> Told:
    """What ended, and what was begun, whether it is known by a snapshot or by the checkpoint."""
    ended = Watermark(of.watermark)
    for first, last in of.finished_ranges():
        ended.skip(first, last + 1)
    finished = {offset for offset in range(10) if ended.is_finished(offset)} | set(of.finished())
    begun = {
        offset: (known.job_id, known.snapshot if known.fields is None else known.fields["is"])
        for offset, known in of.begun().items()
    }
    return finished, begun


@given(histories, st.integers(0, 30), st.integers(0, 10))
def test_a_checkpoint_and_its_tail_tell_what_the_whole_log_tells(history: list[int], covered: int, late: int) -> None:
    whole = recovery()
    whole.ledger.claim(CLAIM, -1, "holder")
    made = records(history)
    covers = CLAIM + 1 + min(covered, len(history))
    standing: dict[int, tuple[SnapshotHeaders, str]] = {}
    for at, headers, snapshot in made:
        whole.snapshot(headers, b"id", snapshot)
        if at < covers:
            standing[headers.offset] = (headers, snapshot)
    ended = Watermark(0)
    for offset, (headers, _) in standing.items():
        if headers.status in TERMINAL:
            ended.finish(offset)
    begun = {
        offset: ("id", {"is": snapshot}) for offset, (headers, snapshot) in standing.items() if headers.status not in TERMINAL
    }
    checkpoint = Checkpoint(EPOCH, covers, ended.position, ended.ranges(), begun)

    tail = recovery(Pointer(EPOCH, covers))
    assert not tail.is_complete
    met_at = covers + late
    for at, headers, snapshot in made:
        if at >= met_at and tail.checkpoint is None:
            assert tail.take_checkpoint(checkpoint)
        if at >= covers:
            tail.snapshot(headers, b"id", snapshot)
    if tail.checkpoint is None:
        tail.take_checkpoint(checkpoint)
    assert tail.is_complete
    assert told(tail) == told(whole)


def test_a_checkpoint_of_a_former_epoch_is_void() -> None:
    tail = recovery(Pointer(20, 21))
    assert not tail.take_checkpoint(Checkpoint(EPOCH, 30, 5, (), {}))
    assert not tail.snapshot(SnapshotHeaders("w", 0, 0, Version(EPOCH, 1, 1), "completed"), b"id", "x"), "and so is a snapshot"
    assert tail.take_checkpoint(Checkpoint(20, 21, 0, (), {}))


def test_without_a_commit_that_points_to_one_no_checkpoint_is_believed() -> None:
    whole = recovery()
    assert not whole.take_checkpoint(Checkpoint(EPOCH, 30, 5, (), {}))
    assert (whole.watermark, whole.is_complete, whole.begins_at) == (0, True, 0)


@given(st.integers(0, 2**40), st.integers(0, 2**40))
def test_a_pointer_comes_back_as_it_was_written(epoch: int, covers: int) -> None:
    assert parse_pointer(format_pointer(Pointer(epoch, covers))) == Pointer(epoch, covers)


def test_other_metadata_is_no_pointer() -> None:
    assert [parse_pointer(text) for text in ("", "checkpoint/1", "checkpoint/x/1", "other/1/2", "checkpoint/1/-2")] == [None] * 5
