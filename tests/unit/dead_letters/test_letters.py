"""What is read of a dead letter: all of it, whatever its bytes and headers are, and nothing that its sender made up."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import ArgumentsInvalid, BrokerUnreachable, Client
from headrace.core.timestamps import from_milliseconds
from headrace.dead_letters import DeadLetterFilter, parse_place, read_dead_letters
from headrace.dead_letters.letters import dead_letter_of
from headrace.ports import TopicPartition
from headrace.testing import StoredRecord
from support.letters import LETTERS, QUEUE, LetterBox, letter_settings, letters_of
from support.memory_engines import passing
from support.virtual_time import in_virtual_time
from support.written_jobs import WORKER

HEADER_NAMES = st.sampled_from(
    ["own", *(f"headrace-{name}" for name in ("schema-version", "reason", "offset", "partition", "topic", "attempt", "job-id"))]
)
HEADERS = st.lists(
    st.tuples(HEADER_NAMES, st.binary(max_size=6) | st.sampled_from([b"1", b"7" * 30, b"-1", b"\xb2"])), max_size=8
)


async def test_a_letter_is_read_with_all_that_its_engine_told(tmp_path: Path) -> None:
    box = LetterBox()
    box.bury(
        b"\xff", ("own", b"x"), job_id="j", error_type="ValueError", attempt=3, at=1_772_000_000_123, letter_partition=2, cut=9
    )
    async with Client(letter_settings(tmp_path), log=box) as client:
        [letter] = await letters_of(client)
        assert await client.get_dead_letter(2, 0) == letter
        for place in ((2, 1), (1, 0), (0, 10**18), (4, 0)):
            assert await client.get_dead_letter(*place) is None
    assert (letter.place, letter.reason, letter.message) == ("2/0", "undecodable", "the record is no JSON")
    assert (letter.error_type, letter.attempt, letter.job_id, letter.worker_name) == ("ValueError", 3, "j", WORKER)
    assert letter.source is not None and letter.source.to_wire() == {"topic": QUEUE, "partition": 3, "offset": 0}
    assert (letter.key, letter.value, letter.headers, letter.cut_from_bytes) == (b"key", b"\xff", (("own", b"x"),), 9)
    wire = letter.to_wire()
    assert (wire["writtenAt"], wire["valueBase64"], wire["key"]) == ("2026-02-25T06:13:20.123Z", "/w==", "key")
    assert wire["headers"] == [{"name": "own", "value": "x"}]
    assert not {"key", "value", "valueBase64", "headers"} & letter.to_wire(whole=False).keys()


@given(HEADERS, st.none() | st.binary(max_size=20), st.none() | st.binary(max_size=3))
def test_no_record_is_too_damaged_to_be_looked_at(
    headers: list[tuple[str, bytes]], value: bytes | None, key: bytes | None
) -> None:
    record = StoredRecord(LETTERS, 1, 2, 3, key, value, tuple(headers))
    letter = dead_letter_of(record)
    assert (letter.key, letter.value, letter.written_at) == (key, value, from_milliseconds(3))
    assert letter.headers == tuple(headers)[: len(letter.headers)]
    assert letter.to_wire()["attempt"] >= 0


def test_what_a_sender_writes_into_headers_does_not_pass_for_the_engines_word() -> None:
    box = LetterBox()
    forged = [("headrace-schema-version", b"1"), ("headrace-job-id", b"another"), ("headrace-cut-from-bytes", b"5")]
    letter = dead_letter_of(box.bury(b"x", *forged))
    assert (letter.job_id, letter.cut_from_bytes, letter.headers) == (None, None, tuple(forged))


async def test_each_filter_narrows(tmp_path: Path) -> None:
    box = LetterBox()
    start = datetime(2026, 3, 1, tzinfo=UTC)
    at = [int((start + timedelta(hours=hour)).timestamp() * 1000) for hour in range(4)]
    box.bury(b"0", at=at[0], job_id="a")
    box.bury(b"1", at=at[1], reason="worker_unknown")
    box.bury(b"2", at=at[2], worker_name="other", letter_partition=1)
    box.bury(b"3", at=at[3], job_id="a", letter_partition=3)
    async with Client(letter_settings(tmp_path), log=box) as client:

        async def values(**wanted: object) -> set[bytes | None]:
            return {letter.value for letter in await letters_of(client, **wanted)}

        assert await values() == {b"0", b"1", b"2", b"3"}
        assert await values(worker_name="other") == {b"2"}
        assert await values(reason="worker_unknown") == {b"1"}
        assert await values(job_id="a") == {b"0", b"3"}
        assert await values(since=start + timedelta(hours=1), until=start + timedelta(hours=3)) == {b"1", b"2"}
        assert await values(job_id="a", since=start + timedelta(hours=1)) == {b"3"}
        with pytest.raises(ArgumentsInvalid, match="time zone"):
            await letters_of(client, since=datetime(2026, 3, 1))


async def test_reading_ends_where_the_log_ended_when_it_began(tmp_path: Path) -> None:
    box = LetterBox()
    for number in range(3):
        box.bury(b"%d" % number)
    box.cluster.delete_records(TopicPartition(LETTERS, 0), 1)
    async with Client(letter_settings(tmp_path), log=box) as client:
        seen = []
        async for letter in client.dead_letters():
            seen.append(letter.value)
            box.bury(b"later")
        assert seen == [b"1", b"2"]
        assert await client.get_dead_letter(0, 0) is None


@in_virtual_time
async def test_what_came_after_the_beginning_is_left_out_also_when_it_is_fetched_with_the_rest() -> None:
    box = LetterBox()
    place = TopicPartition(LETTERS, 0)
    box.bury(b"before")
    box.cluster.withhold(place)

    async def read() -> list[bytes | None]:
        return [letter.value async for letter in read_dead_letters(box, LETTERS, DeadLetterFilter())]

    reading = asyncio.create_task(read())
    await passing(5)
    box.bury(b"after")
    box.cluster.give_out(place)
    assert await reading == [b"before"]
    assert await read() == [b"before", b"after"]


@in_virtual_time
async def test_brokers_that_give_nothing_are_not_waited_for_without_end() -> None:
    box = LetterBox()
    box.bury(b"x")
    box.cluster.withhold(TopicPartition(LETTERS, 0))
    with pytest.raises(BrokerUnreachable, match=f"nothing of {LETTERS} for 30 s"):
        [letter async for letter in read_dead_letters(box, LETTERS, DeadLetterFilter())]


@pytest.mark.parametrize(("text", "place"), [("0/17", (0, 17)), ("12/0", (12, 0)), ("job-1", None), ("", None)])
def test_a_place_is_told_from_a_jobs_id(text: str, place: tuple[int, int] | None) -> None:
    assert parse_place(text) == place


@pytest.mark.parametrize("text", ["0/", "/1", "a/1", "0/1/2", "-1/2", "0/\u00b2", "0/" + "9" * 20])
def test_what_only_looks_like_a_place_is_told(text: str) -> None:
    with pytest.raises(ArgumentsInvalid, match="names no dead letter"):
        parse_place(text)
