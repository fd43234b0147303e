"""The ahead-of-time cache as a file: used only when it is whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.broker.aot import AheadOfTimeCache
from headrace.errors import LocalBrokerError


@pytest.fixture
def cache(tmp_path: Path) -> AheadOfTimeCache:
    """A cache that was just made."""
    made = tmp_path / "made"
    made.write_bytes(b"loaded and linked classes" * 100)
    adopted = AheadOfTimeCache.of(tmp_path / ".", "a-fingerprint")
    adopted.adopt(made)
    assert not made.exists()
    return adopted


def test_a_whole_cache_is_used(cache: AheadOfTimeCache) -> None:
    assert f"-XX:AOTCache={cache.path}" in cache.flags()


@pytest.mark.parametrize("damage", ["flipped", "cut", "without a checksum", "with another's checksum", "not there"])
def test_a_damaged_cache_is_not_used_and_removed(cache: AheadOfTimeCache, damage: str) -> None:
    content = bytearray(cache.path.read_bytes())
    if damage == "flipped":
        content[1000] ^= 1
        cache.path.write_bytes(content)
    elif damage == "cut":
        cache.path.write_bytes(content[:-1])
    elif damage == "without a checksum":
        cache.checksum_path.unlink()
    elif damage == "with another's checksum":
        cache.checksum_path.write_text("0" * 64)
    else:
        cache.path.unlink()
    assert not cache.is_usable()
    assert cache.flags() == ()
    assert not cache.path.exists()
    assert not cache.checksum_path.exists()


def test_a_cache_that_is_being_made_is_not_removed(cache: AheadOfTimeCache) -> None:
    cache.checksum_path.unlink()
    with cache.making() as mine:
        assert mine
        assert cache.flags() == ()
        assert cache.path.exists()


def test_one_at_a_time_makes_the_cache(cache: AheadOfTimeCache) -> None:
    with cache.making() as first, cache.making() as second:
        assert (first, second) == (True, False)
    with cache.making() as third:
        assert third


def test_where_nothing_can_be_written_a_broker_goes_without(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    cache = AheadOfTimeCache.of(tmp_path / "taken", "a-fingerprint")
    assert cache.flags() == ()
    with pytest.raises(LocalBrokerError, match=r"taken cannot be used .*HEADRACE_CACHE_DIRECTORY"), cache.making():
        pass
