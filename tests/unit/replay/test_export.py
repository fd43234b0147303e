"""An export has what a replay of its span needs, tells when it is damaged, and leaves no half of a file."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace import JobContext, NewEntry
from headrace.codec import encode
from headrace.core.comparison import Verdict
from headrace.core.partitions import key_partition
from headrace.core.records import conversation_key, memory_key
from headrace.errors import ArgumentsInvalid, BrokerUnreachable, ExportDamaged, HistoryGone, JobUnknown, WorkerUnknown
from headrace.models import MemoryCompaction, MemoryEntry
from headrace.ports import ConversationRef, RecordingKey, TopicPartition
from headrace.recordings.records import recording_key, recording_partition
from headrace.replay.exports.export_format import ExportHeader, ExportWriter, read_lines
from headrace.replay.exports.exporting import Exported, export_span
from headrace.replay.exports.file_history import FileHistory, read_file_history
from headrace.replay.history import Began, History, RecordedJob, Span, Wanted
from headrace.replay.recorded.log_history import LogHistory
from headrace.replay.rerunning.rerun import Rerunner
from support.histories import recorded_job
from support.reruns import Does
from support.written_jobs import Engines, WrittenLog

SPAN = Span(0, 100_000)
TRIP = ConversationRef("default", "ann", "trip")
WHEN = "2026-03-02T09:30:00.000Z"
# A job of the span has begun an attempt then.
BEGUN_AT = 1772443860000


@pytest.fixture
async def filled(log: WrittenLog, engines: Engines) -> AsyncIterator[LogHistory]:
    """Jobs of two workers with recordings, and a conversation."""
    log.cluster.create_topics([log.topics.recordings, log.topics.memory])
    other = Engines(log, "other")
    other.define()
    epoch = engines.claim("one", -1)
    for job_id in ("done", "failed", "waiting"):
        engines.enqueue(job_id, args={"to": ["ann"], "password": "secret", "long": "x" * (40_000 if job_id == "failed" else 1)})
    other.enqueue("stranger", ctx={})
    engines.run("done", epoch)
    engines.complete("done", {"token": "secret"})
    engines.run("failed", epoch)
    engines.fail("failed", message="secret")
    answers = log.topics.recordings
    for job_id, name, value in (("done", "model", {"key": "secret"}), ("done", "model", [1.5]), ("nobody", "model", 1)):
        place = TopicPartition(answers.name, recording_partition(job_id, answers.partitions))
        number = len(log.cluster.records(place))
        log.put(place, recording_key(job_id, 1, RecordingKey(name, number)), orjson.dumps(value), timestamp=2_000)
    remember(log, TRIP, "e0", 1_000)
    remember(log, TRIP, "e1", BEGUN_AT)
    remember(log, TRIP, "e2", BEGUN_AT + 1)
    remember(log, ConversationRef("default", "ann", "other"), "x", 1_000)
    made = LogHistory(log, log.topics)
    yield made
    await made.stop()


def remember(log: WrittenLog, conversation: ConversationRef, entry_id: str, at: int) -> None:
    topic, address = log.topics.memory, conversation._asdict()
    place = TopicPartition(topic.name, key_partition(conversation_key(*conversation), topic.partitions))
    entry = MemoryEntry(**address, id=entry_id, role="user", content=f"secret {entry_id}", at=WHEN)
    log.put(place, memory_key(*conversation, f"token-{entry_id}"), encode(entry), timestamp=at)
    if entry_id == "e1":
        summary = MemoryCompaction(
            **address, id="s", job_id="j", base_version=-1, supersedes=["e0"], summary="secret sum", at=WHEN
        )
        log.put(place, memory_key(*conversation, "token-s"), encode(summary), timestamp=at)


async def exported(history: LogHistory, path: Path, *redact: str, **wanted: Any) -> Exported:
    return await export_span(history, Wanted(span=SPAN, **wanted), path, redact=redact)


async def all_jobs(history: History, wanted: Wanted) -> list[RecordedJob]:
    found = [job async for batch in history.jobs(wanted) for job in batch]
    return sorted(found, key=lambda job: job.id)


def files_of(directory: Path) -> list[str]:
    return [each.name for each in directory.iterdir()]


def content(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes())


async def test_an_export_gives_what_the_log_gave(filled: LogHistory, tmp_path: Path) -> None:
    path = tmp_path / "span.jsonl.gz"
    told = await exported(filled, path)
    assert told.header.counts == {"worker": 2, "job": 4, "recording": 2, "memory": 3}
    assert files_of(tmp_path) == [path.name]
    history = read_file_history(path)
    assert (history.span, history.header) == (SPAN, told.header)
    for wanted in (
        Wanted(span=SPAN),
        Wanted(span=Span(1_001, 1_002)),
        Wanted(span=SPAN, workers=["other"]),
        Wanted(span=SPAN, fields={"status": "failed"}),
    ):
        assert await all_jobs(history, wanted) == await all_jobs(filled, wanted)
    assert [await history.count(Wanted(span=SPAN, workers=each)) for each in ([], ["other"])] == [4, 1]
    part = Wanted(span=Span(1_001, 1_002))
    assert await history.count(part) == len(await all_jobs(history, part)) == 1
    assert await history.worker_definitions() == await filled.worker_definitions()
    assert await history.find("failed") == await filled.find("failed")
    done = await history.find("done")
    assert await history.recordings(done, 1) == await filled.recordings(done, 1) != {}
    assert await history.recordings(done, 2) == {}
    for at in (0, 1_000, BEGUN_AT, Began(BEGUN_AT, 0, 0, "done", 1), Began(1_000, 0, BEGUN_AT, "done", 1)):
        assert await history.memory_at(TRIP, at) == await filled.memory_at(TRIP, at)
    assert [entry.role for entry in (await history.memory_at(TRIP, BEGUN_AT)).entries] == ["summary", "user"]


async def test_a_part_of_a_span_has_jobs_of_its_own_workers_alone(filled: LogHistory, tmp_path: Path) -> None:
    path = tmp_path / "part.gz"
    await exported(filled, path, workers=["send_digest"], fields={"status": "completed"})
    history = read_file_history(path)
    assert [job.id for job in await all_jobs(history, Wanted(span=SPAN))] == ["done"]
    assert set(await history.recorded_workers()) == {"send_digest"}
    with pytest.raises(WorkerUnknown, match=r"'other'.*There are jobs of: send_digest"):
        await all_jobs(history, Wanted(span=SPAN, workers=["other"]))
    with pytest.raises(JobUnknown, match=r"no job 'failed' in .*part.gz"):
        await history.find("failed")


async def test_a_span_that_is_not_within_that_of_the_export_is_refused(
    engines: Engines, filled: LogHistory, tmp_path: Path
) -> None:
    path = tmp_path / "late.gz"
    await export_span(filled, Wanted(span=Span(1_001, 100_000)), path)
    with pytest.raises(HistoryGone, match=r"1970-01-01T00:00:01.001Z: begin at 1970-01-01T00:00:01.001Z\."):
        await all_jobs(read_file_history(path), Wanted(span=SPAN))
    with pytest.raises(HistoryGone, match=r"to 1970-01-01T00:00:01.000Z lies before that of \S+late.gz, which is from 1970-"):
        await all_jobs(read_file_history(path), Wanted(span=Span(0, 1_000)))
    with pytest.raises(HistoryGone, match=r"ends at 1970-01-01T00:01:40.000Z: begin before that"):
        await all_jobs(read_file_history(path), Wanted(span=Span(100_000, 200_000)))
    with pytest.raises(
        HistoryGone, match=r"ends at 1970-01-01T00:01:40.001Z, and that of .*gz at 1970-01-01T00:01:40.000Z: end there"
    ):
        await all_jobs(read_file_history(path), Wanted(span=Span(1_001, 100_001)))


async def test_what_is_redacted_is_nowhere_in_the_file(filled: LogHistory, tmp_path: Path) -> None:
    path = tmp_path / "redacted.gz"
    paths = (
        "args.password",
        "result.token",
        "error.message",
        "recordings.model.key",
        "memory.content",
        "memory.summary",
        "progress.text",
    )
    told = await exported(filled, path, *paths)
    assert b"secret" not in content(path)
    assert told.redactions == dict(zip(paths, (4, 1, 2, 1, 2, 1, 0), strict=True)), "also in the snapshots"
    history = read_file_history(path)
    job = await history.find("failed")
    assert job.record["args"]["password"] == "[redacted]" and job.record["args"]["to"] == ["ann"]
    assert job.snapshot is not None and job.snapshot["error"]["type"] == "ValueError"
    assert list((await history.recordings(await history.find("done"), 1)).values()) == [b'{"key":"[redacted]"}', b"[1.5]"]
    assert history.header.redacted == job.redacted == paths


async def test_what_was_raised_outside_is_exported_and_hidden_with_the_answers_of_its_name(
    log: WrittenLog, filled: LogHistory, tmp_path: Path
) -> None:
    answers, key = log.topics.recordings, RecordingKey("page", 0, 0)
    place, done = TopicPartition(answers.name, recording_partition("done", answers.partitions)), await filled.find("done")
    failure = {"type": "KeyError", "message": "'secret'", "args": ["secret"]}
    log.put(place, recording_key("done", 1, key), orjson.dumps(failure), timestamp=2_000)
    await exported(filled, tmp_path / "all.gz")
    assert orjson.loads((await read_file_history(tmp_path / "all.gz").recordings(done, 1))[key]) == failure
    told = await exported(filled, tmp_path / "redacted.gz", "recordings.page", "args.password", "result.token")
    found = (await read_file_history(tmp_path / "redacted.gz").recordings(done, 1))[key]
    assert orjson.loads(found) == {"type": "KeyError", "message": "[redacted]"}
    assert told.redactions["recordings.page"] == 1
    with pytest.raises(ArgumentsInvalid, match=r"recordings.page.typo.*has met nothing"):
        await exported(filled, tmp_path / "part.gz", "recordings.page.typo")


@pytest.mark.parametrize(
    "path", ["args.pasword", "ctx.typo", "result.typo", "recordings.typo", "recordings.model.typo", "args.*.typo"]
)
async def test_a_path_that_may_be_misspelt_leaves_no_file(filled: LogHistory, tmp_path: Path, path: str) -> None:
    with pytest.raises(ArgumentsInvalid, match=r"has met nothing: is it misspelt.* No file was written"):
        await exported(filled, tmp_path / "a.gz", "args.password", path)
    assert files_of(tmp_path) == []


async def test_what_cannot_be_misspelt_may_meet_nothing(filled: LogHistory, tmp_path: Path) -> None:
    fixed = ("orderingKey", "progress.text", "recordings.*", "memory.title", "error.traceback", "result")
    told = await exported(filled, tmp_path / "a.gz", *fixed, workers=["other"])
    assert told.header.counts["job"] == 1 and set(told.redactions.values()) == {0}
    told = await exported(filled, tmp_path / "b.gz", "args.typo", fields={"status": "cancelled"})
    assert told.header.counts["job"] == 0, "nothing is in it that might have been left out"


async def test_who_talked_is_not_told_by_the_memory_where_it_is_redacted(filled: LogHistory, tmp_path: Path) -> None:
    path = tmp_path / "nobody.gz"
    told = await exported(filled, path, "ctx.userId", "args.to")
    assert told.header.counts["memory"] == 0 and b"ann" not in content(path)


def damaged(kind: str, whole: bytes) -> bytes:
    lines = gzip.decompress(whole).splitlines(keepends=True)
    match kind:
        case "empty":
            return b""
        case "no gzip":
            return b"".join(lines)
        case "another file":
            return gzip.compress(b'{"type": "job"}\n')
        case "no json":
            return gzip.compress(b"\xff\xfe")
        case "cut in a line":
            return whole[:-40]
        case "cut behind the header":
            return gzip.compress(lines[0])
        case "a line less":
            return gzip.compress(b"".join([*lines[:2], *lines[3:]]))
        case "a line more":
            return gzip.compress(b"".join([*lines, lines[-1]]))
        case "a bit":
            middle = len(whole) // 2
            return whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        case "a value":
            return gzip.compress(b"".join(lines).replace(b'"to":["ann"]', b'"to":["bob"]'))
        case _ if kind in HEADER_CHANGES:
            before, after = HEADER_CHANGES[kind]
            assert before in lines[0]
            return gzip.compress(b"".join([lines[0].replace(before, after), *lines[1:]]))
        case _:
            raise AssertionError(kind)


# What an export says of itself, and what somebody makes of it.
HEADER_CHANGES = {
    "an earlier start": (b'"from":"1970-01-01T00:00:00.000Z"', b'"from":"1969-01-01T00:00:00.000Z"'),
    "a later end": (b'"to":"1970-01-01T00:01:40.000Z"', b'"to":"1971-01-01T00:01:40.000Z"'),
    "another namespace": (b'"namespace":"', b'"namespace":"x'),
    "other counts": (b'"job":4', b'"job":5'),
    "nothing redacted": (b'"redacted":["args.password"]', b'"redacted":[]'),
    "a number redacted": (b'"redacted":["args.password"]', b'"redacted":[5]'),
    "null redacted": (b'"redacted":["args.password"]', b'"redacted":[null]'),
    "no path redacted": (b'"redacted":["args.password"]', b'"redacted":"args"'),
    "no name of a worker": (b'"workers":[]', b'"workers":[5]'),
}


@pytest.mark.parametrize(
    "kind",
    [
        *("empty", "no gzip", "another file", "no json", "cut in a line", "cut behind the header"),
        *("a line less", "a line more", "a bit", "a value"),
        *HEADER_CHANGES,
    ],
)
async def test_a_damaged_export_is_told(filled: LogHistory, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "span.gz"
    await exported(filled, path, "args.password")
    path.write_bytes(damaged(kind, path.read_bytes()))
    with pytest.raises(ExportDamaged, match=r"span\.gz"):
        read_file_history(path)


@pytest.mark.parametrize("counts", [{}, {"job": 2, "memory": 1}, {"job": 1, "memory": 0}, {"job": 1, "memory": 1, "worker": 1}])
def test_an_export_with_other_lines_than_it_counts_is_damaged(tmp_path: Path, counts: dict[str, int]) -> None:
    def written(name: str, said: dict[str, int]) -> Path:
        with ExportWriter(tmp_path / name) as writer:
            writer.add("job")
            writer.add("memory")
            writer.finish(ExportHeader(namespace="n", span=SPAN, counts=said))
        return tmp_path / name

    assert len(list(read_lines(written("good.gz", {"job": 1, "memory": 1, "worker": 0})))) == 2
    with pytest.raises(ExportDamaged, match="other lines than its header counts"):
        list(read_lines(written("bad.gz", counts)))


async def test_an_export_of_a_newer_version_is_told(filled: LogHistory, tmp_path: Path) -> None:
    path = tmp_path / "span.gz"
    await exported(filled, path)
    path.write_bytes(gzip.compress(content(path).replace(b'"version":1', b'"version":2', 1)))
    with pytest.raises(ExportDamaged, match="of version 2, and this headrace knows version 1"):
        read_file_history(path)


async def test_a_file_that_is_there_is_left_alone(filled: LogHistory, tmp_path: Path) -> None:
    path = tmp_path / "span.gz"
    path.write_text("mine")
    with pytest.raises(ArgumentsInvalid, match="is there already"):
        await exported(filled, path)
    assert path.read_text() == "mine"
    path.chmod(0o644)
    await export_span(filled, Wanted(span=SPAN), path, overwrite=True)
    assert isinstance(read_file_history(path), FileHistory)
    assert path.stat().st_mode & 0o777 == 0o600, "it has what users wrote"
    with pytest.raises(ArgumentsInvalid, match="cannot be written"):
        await exported(filled, tmp_path / "no" / "span.gz")


async def test_what_is_cancelled_when_all_is_written_ends_first(
    filled: LogHistory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, path = threading.Event(), threading.Event(), tmp_path / "a.gz"
    finish = ExportWriter.finish

    def finish_late(writer: ExportWriter, header: ExportHeader) -> ExportHeader:
        begun.set()
        go_on.wait()
        return finish(writer, header)

    monkeypatch.setattr(ExportWriter, "finish", finish_late)
    exporting = asyncio.create_task(exported(filled, path))
    try:
        await asyncio.to_thread(begun.wait)
        exporting.cancel()
        ended, _ = await asyncio.wait({exporting}, timeout=0.1)
        assert not ended, "its files are still written"
    finally:
        go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await exporting
    assert files_of(tmp_path) == [path.name]
    assert isinstance(read_file_history(path), FileHistory)


async def test_what_fails_leaves_no_file(log: WrittenLog, filled: LogHistory, tmp_path: Path) -> None:
    with pytest.raises(WorkerUnknown):
        await exported(filled, tmp_path / "a.gz", workers=["nobody"])

    class Stopped(BaseException):
        """As Ctrl-C does it."""

    def stop(_: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        await export_span(filled, Wanted(span=SPAN), tmp_path / "a.gz", watch=stop)
    log.go_away()
    with pytest.raises(BrokerUnreachable):
        await exported(filled, tmp_path / "a.gz")
    assert files_of(tmp_path) == []


async def test_a_job_that_needs_memory_which_is_not_in_the_export_cannot_be_compared(filled: LogHistory, tmp_path: Path) -> None:
    """Nobody knows what it would make of it. To add to it, nothing need be known."""
    paths = {"plain": tmp_path / "plain.gz", "redacted": tmp_path / "redacted.gz"}
    await exported(filled, paths["plain"])
    await exported(filled, paths["redacted"], "ctx.userId")
    plain, redacted = (read_file_history(path) for path in paths.values())
    entry = NewEntry(content="hello", role="user")

    async def reads(args: dict[str, Any], ctx: JobContext) -> Any:
        return len((await ctx.memory.read(args["who"], "trip")).entries)

    async def appends(args: dict[str, Any], ctx: JobContext) -> Any:
        return (await ctx.memory.append(args["who"], "trip", [entry])).added

    async def verdict(behaves: Any, history: FileHistory, who: str, result: int) -> tuple[Verdict, str]:
        async with Rerunner(history, [Does(behaves)]) as rerunner:
            told = await rerunner.rerun(recorded_job("does", {"who": who}, result=result, tenant="default"))
        return told.comparison.verdict, told.comparison.reason

    unknown = "the memory of conversation 'trip' of user {!r} is not in the export"
    assert await verdict(reads, plain, "ann", 3) == (Verdict.DIFFERENT, "")
    assert await verdict(reads, plain, "ben", 3) == (Verdict.NOT_COMPARABLE, unknown.format("ben"))
    assert await verdict(reads, redacted, "ann", 3) == (Verdict.NOT_COMPARABLE, unknown.format("ann"))
    assert (await verdict(reads, redacted, "[redacted]", 3))[0] is Verdict.NOT_COMPARABLE
    assert await verdict(appends, redacted, "ann", 1) == (Verdict.SAME, "")
    assert await verdict(appends, redacted, "ann", 0) == (Verdict.NOT_COMPARABLE, unknown.format("ann"))


@pytest.mark.parametrize(
    ("paths", "warned"),
    [
        (["error.message"], True),
        (["error.message", "error.traceback"], False),
        (["error.traceback"], False),
    ],
    ids=["message", "both", "traceback"],
)
async def test_a_message_that_stands_in_a_traceback_is_warned_of(
    filled: LogHistory, tmp_path: Path, paths: list[str], warned: bool
) -> None:
    told = await exported(filled, tmp_path / "span.gz", *paths)
    assert ["error.traceback" in warning for warning in told.warnings] == [True] * warned
