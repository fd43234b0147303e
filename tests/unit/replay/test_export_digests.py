"""What an export that redacts says of the digests of keys, by which a guess at what was redacted can be checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.ports import RecordingKey, TopicPartition
from headrace.recordings.names import keyed, within
from headrace.recordings.records import recording_key, recording_partition
from headrace.replay.exports.exporting import Exported, export_span
from headrace.replay.exports.file_history import read_file_history
from headrace.replay.history import Span, Wanted
from headrace.replay.recorded.log_history import LogHistory
from support.written_jobs import Engines, WrittenLog


@pytest.fixture
def ran(log: WrittenLog, engines: Engines, history: LogHistory) -> LogHistory:
    """What there is of a job that has run."""
    log.cluster.create_topics([log.topics.recordings, log.topics.memory])
    epoch = engines.claim("one", -1)
    engines.enqueue("done", args={"to": ["ann"], "password": "secret"})
    engines.run("done", epoch)
    engines.complete("done", {})
    return history


def record(log: WrittenLog, *names: str) -> None:
    answers = log.topics.recordings
    place = TopicPartition(answers.name, recording_partition("done", answers.partitions))
    for number, name in enumerate(names):
        log.put(place, recording_key("done", 1, RecordingKey(name, number)), b"1", timestamp=2_000)


async def exported(history: LogHistory, path: Path, *redact: str) -> Exported:
    return await export_span(history, Wanted(span=Span(0, 100_000)), path, redact=redact)


async def test_where_no_call_has_a_key_nothing_is_warned_of(log: WrittenLog, ran: LogHistory, tmp_path: Path) -> None:
    record(log, "page[?]", "model", f"model[{'0' * 31}]")
    told = await exported(ran, tmp_path / "redacted.gz", "args.password")
    assert (told.header.counts["recording"], told.warnings) == (3, ())


async def test_where_something_is_redacted_it_is_told_once_that_the_digests_of_keys_are_left(
    log: WrittenLog, ran: LogHistory, tmp_path: Path
) -> None:
    within_page = within(RecordingKey(keyed("page", "secret"), 3), "token")
    record(log, keyed("model", "secret"), keyed("model", "other"), within_page, within(RecordingKey("site", 0), keyed("a/b", 1)))
    assert (await exported(ran, tmp_path / "whole.gz")).warnings == (), "nothing is hidden that could be guessed"
    [warning] = (await exported(ran, tmp_path / "redacted.gz", "args.password")).warnings
    assert "recordings named a/b, model, page is in the file as a digest" in warning
    history = read_file_history(tmp_path / "redacted.gz")
    found = await history.recordings(await history.find("done"), 1)
    assert RecordingKey(keyed("model", "secret"), 0) in found, "a replay finds it by its key"
