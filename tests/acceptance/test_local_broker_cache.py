"""The ahead-of-time cache: made in the background, used from the next start on, and never in the way."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from headrace.broker import LocalBroker, LocalBrokerOptions, start_local_broker
from headrace.broker.aot import AheadOfTimeCache
from headrace.broker.installation import default_cache_directory, provide_installation
from headrace.broker.jars import sha256_of
from headrace.settings import load_settings
from support.processes import processes_naming, wait_until

# The making is niced, and this machine may be busy with other tests.
MAKING_SECONDS = 600.0


def with_jars_alone(directory: Path) -> AheadOfTimeCache:
    """A cache directory as it is after the download, and the ahead-of-time cache that will be in it."""
    source = load_settings().cache_directory or default_cache_directory()
    jars = provide_installation(source).jars[0].parent
    shutil.copytree(jars, directory / jars.name)
    return AheadOfTimeCache.of(directory, provide_installation(directory).fingerprint)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AheadOfTimeCache]:
    """A cache that was made in the background of a broker."""
    directory = tmp_path_factory.mktemp("cache")
    cache = with_jars_alone(directory)
    with start_local_broker(None, cache_directory=directory) as broker:
        assert not uses_cache(broker)
        wait_until(cache.is_usable, "the cache is made", seconds=MAKING_SECONDS)
        assert broker.running
    assert left_of(directory) == []
    yield cache
    shutil.rmtree(directory)


@pytest.fixture
def cache(trained: AheadOfTimeCache) -> Iterator[AheadOfTimeCache]:
    """The cache, for a test that damages it."""
    content, checksum = trained.path.read_bytes(), trained.checksum_path.read_text()
    yield trained
    trained.path.write_bytes(content)
    trained.checksum_path.write_text(checksum)


def left_of(directory: Path) -> list[object]:
    return [*directory.glob(".training-*"), *processes_naming(directory)]


def uses_cache(broker: LocalBroker) -> bool:
    """Whether Java has mapped a cache, not only been told of one."""
    return any(mapped.path.endswith(".aot") for mapped in psutil.Process(broker.node.pid).memory_maps())


def start(cache: AheadOfTimeCache) -> LocalBroker:
    """Start a broker that does not begin to make a cache for itself while it is looked at."""
    return start_local_broker(None, LocalBrokerOptions(), cache_directory=cache.path.parent)


def test_the_next_start_uses_the_cache(trained: AheadOfTimeCache) -> None:
    with start(trained) as broker:
        assert uses_cache(broker)


def test_the_cache_can_be_left_aside(trained: AheadOfTimeCache) -> None:
    options = LocalBrokerOptions(ahead_of_time_cache=False)
    with start_local_broker(None, options, cache_directory=trained.path.parent) as broker:
        assert not uses_cache(broker)
    assert trained.is_usable()


def test_a_cut_cache_is_removed_and_done_without(cache: AheadOfTimeCache) -> None:
    with cache.path.open("r+b") as file:
        file.truncate(1_000_000)
    with start(cache) as broker:
        assert broker.running
        assert not uses_cache(broker)
        # It may have been made anew by now.
        assert not cache.path.exists() or sha256_of(cache.path) == cache.checksum_path.read_text().strip()


def test_a_cache_that_makes_java_crash_is_removed_and_done_without(cache: AheadOfTimeCache) -> None:
    content = bytearray(cache.path.read_bytes())
    middle = len(content) // 4
    content[middle : middle * 3] = bytes(byte ^ 0x55 for byte in content[middle : middle * 3])
    cache.path.write_bytes(content)
    # Damaged before its sha256 was taken: the check lets it pass.
    cache.checksum_path.write_text(sha256_of(cache.path))
    damaged = cache.checksum_path.read_text()
    with start(cache) as broker:
        assert broker.running
        assert not uses_cache(broker)
        assert not cache.path.exists() or cache.checksum_path.read_text() != damaged


def test_a_broker_that_fails_for_another_reason_costs_no_cache(trained: AheadOfTimeCache) -> None:
    options = LocalBrokerOptions(properties={"compression.type": "no-such-codec"})
    with pytest.raises(Exception, match="no-such-codec"):
        start_local_broker(None, options, cache_directory=trained.path.parent)
    assert trained.is_usable()


def test_a_broker_that_stops_meanwhile_leaves_nothing_of_the_making(tmp_path: Path) -> None:
    cache = with_jars_alone(tmp_path)
    with start(cache) as broker:
        wait_until(lambda: len(left_of(tmp_path)) > 3, "the making is under way", seconds=90)
        began = time.monotonic()
        broker.stop()
    assert left_of(tmp_path) == []
    assert not cache.path.exists()
    assert time.monotonic() - began < 60
