"""Names, keys, ids and places: each says one thing, and says it the same way everywhere."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.identifiers import derived_id, fresh_id
from headrace.core.partitions import key_partition, state_partition
from headrace.core.records import (
    LeaseKey,
    checkpoint_key,
    checkpoint_prefix,
    conversation_key,
    definition_key,
    instance_key,
    instance_of,
    lease_key,
    lease_name,
    memory_key,
    parse_lease_key,
    source_header,
    source_prefix,
)
from headrace.core.status import MOVES, TERMINAL, IllegalMove, JobStatus, check_move
from headrace.core.timestamps import format_timestamp, from_milliseconds, parse_timestamp, to_milliseconds
from headrace.core.topics import WORKER_NAME, Topics

workers = st.from_regex(WORKER_NAME, fullmatch=True)
namespaces = st.text("abcxyz019-", min_size=1, max_size=12)
partitions = st.integers(0, 2**31 - 1)
instances = st.binary(min_size=10, max_size=10).map(lambda randomness: fresh_id(1_780_000_000_000, randomness))
text = st.text(max_size=20)


claims = st.integers(0, 10**6)


@given(workers, partitions, instances, claims)
def test_the_key_of_a_lease_tells_which_it_is_and_whose(worker: str, partition: int, instance: str, number: int) -> None:
    name = lease_name(instance, number)
    key = parse_lease_key(lease_key(worker, partition, name))
    assert key == LeaseKey(worker, partition, name)
    assert key.instance_id == instance_of(name) == instance


@given(instances, instances, claims, claims)
def test_no_two_claims_have_one_name(instance: str, other: str, number: int, another: int) -> None:
    assert (lease_name(instance, number) == lease_name(other, another)) == ((instance, number) == (other, another))
    assert lease_name(instance, 1) == instance


@given(st.binary(max_size=40))
def test_any_other_key_is_no_lease_s(key: bytes) -> None:
    parsed = parse_lease_key(key)
    assert parsed is None or key.startswith(b"lease/")


@given(workers, partitions, workers, partitions, instances)
def test_a_checkpoint_is_found_by_its_partition_alone(worker: str, one: int, other: str, two: int, instance: str) -> None:
    key = checkpoint_key(worker, one, instance)
    assert key.startswith(checkpoint_prefix(other, two)) == ((worker, one) == (other, two))
    assert parse_lease_key(key) is None


@given(workers, partitions, workers, partitions, st.integers(0, 2**60))
def test_a_job_is_found_by_its_partition_alone(worker: str, one: int, other: str, two: int, offset: int) -> None:
    _, value = source_header(worker, one, offset)
    assert value.startswith(source_prefix(other, two)) == ((worker, one) == (other, two))


@given(workers, instances)
def test_definitions_and_instances_do_not_meet(worker: str, instance: str) -> None:
    assert not {definition_key(worker), definition_key(instance)} & {instance_key(worker), instance_key(instance)}


@given(text, text, text, text, text, text)
def test_conversations_are_told_apart(tenant: str, user: str, name: str, tenant_2: str, user_2: str, name_2: str) -> None:
    equal = (tenant, user, name) == (tenant_2, user_2, name_2)
    assert (conversation_key(tenant, user, name) == conversation_key(tenant_2, user_2, name_2)) == equal
    assert memory_key(tenant, user, name, "1").startswith(conversation_key(tenant, user, name).encode() + b"/")


@given(st.lists(text, min_size=1, max_size=4), st.lists(text, min_size=1, max_size=4))
def test_derived_ids_are_equal_where_all_their_parts_are(parts: list[str], others: list[str]) -> None:
    assert (derived_id(*parts) == derived_id(*others)) == (parts == others)
    assert uuid.UUID(derived_id(*parts)).version == 5


@given(st.text(), st.integers(1, 64))
def test_a_key_has_one_partition_of_those_there_are(key: str, count: int) -> None:
    assert 0 <= key_partition(key, count) < count
    assert key_partition(key, count) == key_partition(str(key), count)


@given(workers, st.integers(1, 64))
def test_the_partitions_of_a_worker_spread_over_those_of_the_state(worker: str, count: int) -> None:
    places = [state_partition(worker, partition, count) for partition in range(count)]
    assert sorted(places) == list(range(count))


@given(namespaces, namespaces, workers)
def test_a_queue_belongs_to_one_worker_of_one_namespace(namespace: str, other: str, worker: str) -> None:
    topics = Topics(namespace)
    assert topics.worker_of(topics.jobs_name(worker)) == worker
    assert topics.worker_of(topics.jobs(worker).name) == worker
    assert (Topics(other).worker_of(topics.jobs_name(worker)) is None) == (other != namespace)
    for topic in (topics.job_state, topics.workers, topics.memory, topics.dead_letters):
        assert topics.worker_of(topic.name) is None


@pytest.mark.parametrize("name", ["a.jobs.replay-x.control", "a.jobs.replay-x.jobs.count", "a.jobs.jobs.count", "a.jobs."])
def test_no_topic_of_a_namespace_whose_name_is_longer_is_a_queue(name: str) -> None:
    """As those of the sandboxes of `a.jobs`: no worker has such a name."""
    assert Topics("a").worker_of(name) is None


@pytest.mark.parametrize("before", JobStatus)
@pytest.mark.parametrize("after", JobStatus)
def test_a_move_is_made_if_the_table_has_it(before: JobStatus, after: JobStatus) -> None:
    if after in MOVES[before]:
        check_move(before, after)
        check_move(before.value, after.value)
    else:
        with pytest.raises(IllegalMove, match=f"from {before} to {after}"):
            check_move(before, after)


@given(st.lists(st.sampled_from(JobStatus), max_size=12))
def test_no_way_leads_out_of_an_end(wanted: list[JobStatus]) -> None:
    status, ended = JobStatus.SCHEDULED, False
    for after in wanted:
        try:
            check_move(status, after)
        except IllegalMove:
            continue
        assert not ended
        status = after
        ended = status in TERMINAL


@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2990, 1, 1)),
    st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
def test_a_time_of_any_zone_is_the_same_moment(moment: datetime, zone: timezone) -> None:
    there = moment.replace(tzinfo=UTC).astimezone(zone)
    milliseconds = to_milliseconds(there)
    assert milliseconds == to_milliseconds(moment), "a time without a zone is taken for UTC"
    assert parse_timestamp(there.isoformat(timespec="microseconds")) == milliseconds
    assert timedelta() <= there - from_milliseconds(milliseconds) < timedelta(milliseconds=1)
    assert format_timestamp(milliseconds) == from_milliseconds(milliseconds).isoformat(timespec="milliseconds").replace(
        "+00:00", "Z"
    )


@given(st.text(max_size=30))
def test_what_is_no_time_is_refused(anything: str) -> None:
    try:
        milliseconds = parse_timestamp(anything)
    except ValueError:
        return
    assert parse_timestamp(format_timestamp(milliseconds)) == milliseconds
