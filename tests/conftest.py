"""Fixtures for every test: one broker a session, a namespace of its own for each test."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from headrace.broker import Broker, ForeignBroker, start_local_broker
from headrace.settings import Settings, load_settings

# The same examples in every run, however slow the machine: a red run means a change. HYPOTHESIS_PROFILE=explore looks for others.
hypothesis.settings.register_profile(
    "steady", derandomize=True, database=None, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile(
    "explore", max_examples=1000, deadline=None, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))

NEEDS_DOCKER = Path(__file__).parent / "docker"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Tests that need a Docker engine run only where somebody names their folder: none is ever skipped."""
    if collection_path != NEEDS_DOCKER and NEEDS_DOCKER not in collection_path.parents:
        return None
    named = (Path(config.invocation_params.dir, argument.partition("::")[0]).resolve() for argument in config.args)
    return None if any(path == NEEDS_DOCKER or NEEDS_DOCKER in path.parents for path in named) else True


def pytest_report_header() -> str:
    """What this machine lets be tested, and what is stood in for."""
    from support.memory_cgroups import memory_cgroups_can_be_made

    killer = "the kernel kills a process" if memory_cgroups_can_be_made() else "a signal stands in for the kernel"
    return f"out of memory: {killer}"


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """The broker of the session: the one that KAFKA_BOOTSTRAP_SERVERS names, else an Apache Kafka of our own.

    It creates topics by itself, as Kafka does by default. When pytest dies, however, the broker and its data go too.
    """
    named = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if named:
        yield ForeignBroker("external", named, f"external: {named}, from KAFKA_BOOTSTRAP_SERVERS")
        return
    with start_local_broker(None, cache_directory=load_settings().cache_directory) as started:
        yield started


@pytest.fixture
def namespace() -> str:
    """A namespace that no other test uses: the first part of every topic's and group's name."""
    return f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def settings(broker: Broker, namespace: str, tmp_path: Path) -> Settings:
    """Settings for the session's broker, this test's namespace and a data directory of its own."""
    return load_settings(bootstrap_servers=broker.bootstrap_servers, namespace=namespace, data_directory=tmp_path / "headrace")
