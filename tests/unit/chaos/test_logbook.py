"""What a chaos run makes of the log: jobs, duplicates, ends, and what comes after an end."""

from __future__ import annotations

import orjson

from chaos.logbook import LogBook
from chaos.verdict import Queued
from headrace.core.ownership import Version
from headrace.core.records import lease_key, source_header, status_header, version_header
from headrace.core.topics import Topics
from headrace.ports import Header
from headrace.testing.storage import StoredRecord

TOPICS = Topics("chaos")


class Writing:
    """Writes a log of one partition of `keyed`, and has it read at once."""

    def __init__(self) -> None:
        self.book = LogBook(TOPICS, ("short", "keyed"))
        self._ends = {TOPICS.jobs_name("keyed"): 0, TOPICS.job_state.name: 0, TOPICS.dead_letters.name: 0}

    def _write(self, topic: str, key: bytes, value: object, headers: tuple[Header, ...] = ()) -> int:
        offset = self._ends[topic]
        self._ends[topic] += 1
        self.book.take(StoredRecord(topic, 0, offset, 0, key, orjson.dumps(value), headers))
        return offset

    def enqueue(self, job: str) -> int:
        return self._write(TOPICS.jobs_name("keyed"), b"k", {"id": job, "orderingKey": "k"})

    def dead_letter(self, job: str, reason: str) -> None:
        headers = (("headrace-schema-version", b"1"), ("headrace-reason", reason.encode()), ("headrace-job-id", job.encode()))
        self._write(TOPICS.dead_letters.name, b"k", {"id": job}, headers)

    def claim(self, instance: str, previous: int) -> int:
        value = {"kind": "claim", "workerName": "keyed", "partition": 0, "instanceId": instance, "previous": previous}
        return self._write(TOPICS.job_state.name, lease_key("keyed", 0, instance), value)

    def state(self, job: str, offset: int, status: str, version: Version) -> None:
        attempts = [{"attempt": version.attempt, "status": status}]
        headers = (source_header("keyed", 0, offset), version_header(version), status_header(status))
        self._write(TOPICS.job_state.name, job.encode(), {"id": job, "status": status, "attempts": attempts}, headers)


def test_a_job_is_open_until_its_end_is_written() -> None:
    log = Writing()
    epoch = log.claim("one", -1)
    offset = log.enqueue("a")
    log.enqueue("a")
    assert log.book.unfinished() == 1, "a duplicate is no second job"
    log.state("a", offset, "running", Version(epoch, 1, 1))
    assert log.book.unfinished() == 1
    log.state("a", offset, "completed", Version(epoch, 1, 2))
    assert log.book.unfinished() == 0
    facts = log.book.facts()
    assert facts.queued == [Queued("a", "keyed", 0, 0, "k"), Queued("a", "keyed", 0, 1, "k")]
    assert facts.outcomes["a"].has_ended
    assert facts.outcomes["a"].attempts == {1: "completed"}
    assert facts.begun_again == []


def test_the_end_may_be_read_before_the_job() -> None:
    log = Writing()
    log.state("a", 0, "failed", Version(log.claim("one", -1), 1, 2))
    log.enqueue("a")
    assert log.book.unfinished() == 0


def test_the_last_words_of_a_predecessor_count_for_nothing() -> None:
    log = Writing()
    first = log.claim("one", -1)
    offset = log.enqueue("a")
    second = log.claim("two", first)
    log.state("a", offset, "completed", Version(first, 1, 2))
    assert log.book.unfinished() == 1
    log.state("a", offset, "completed", Version(second, 1, 2))
    log.state("a", offset, "running", Version(first, 2, 1))
    assert log.book.unfinished() == 0
    assert log.book.facts().begun_again == []


def test_what_begins_after_its_end_is_told() -> None:
    log = Writing()
    first = log.claim("one", -1)
    offset = log.enqueue("a")
    log.state("a", offset, "completed", Version(first, 1, 2))
    second = log.claim("two", first)
    log.state("a", offset, "running", Version(second, 2, 1))
    [told] = log.book.facts().begun_again
    assert "completed" in told
    assert "and then running" in told


def test_a_record_that_repeats_a_job_and_was_taken_for_one_of_its_own_is_told() -> None:
    log = Writing()
    epoch = log.claim("one", -1)
    first, second = log.enqueue("a"), log.enqueue("a")
    log.state("a", first, "completed", Version(epoch, 1, 2))
    assert log.book.facts().done_twice == []
    log.state("a", second, "completed", Version(epoch, 1, 2))
    assert log.book.facts().done_twice == ["a: completed at keyed 0/0, and completed at keyed 0/1"]


def test_a_void_state_of_a_record_that_repeats_a_job_says_nothing() -> None:
    log = Writing()
    before = log.claim("one", -1)
    first, second = log.enqueue("a"), log.enqueue("a")
    epoch = log.claim("two", before)
    log.state("a", first, "completed", Version(epoch, 1, 2))
    log.state("a", second, "completed", Version(before, 1, 2))
    assert log.book.facts().done_twice == []


def test_a_dead_letter_tells_which_job_took_too_many_processes_with_it() -> None:
    log = Writing()
    log.enqueue("a")
    log.dead_letter("a", "poison")
    log.dead_letter("b", "undecodable")
    assert log.book.facts().given_up == {"a"}
