"""Three Kafka nodes on this machine: any one may be stopped or killed, and no job stops for it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from chaos.brokers import Brokers
from headrace import Client, EnqueueTimeout, Settings, worker
from headrace.broker import LocalBroker, LocalBrokerOptions, start_local_broker
from headrace.broker.cluster import LocalCluster
from headrace.broker.readiness import describe_cluster
from headrace.core.topics import Topics
from headrace.errors import LocalBrokerError, LocalBrokerInUse
from headrace.settings import load_settings
from support.engines import ended, engine_with, eventually, with_engine
from support.processes import processes_naming, read_line, wait_until

COMMAND = [sys.executable, "-m", "headrace", "broker"]


def start(directory: Path | None, nodes: int | None = 3) -> LocalBroker:
    return start_local_broker(directory, LocalBrokerOptions(nodes=nodes), cache_directory=load_settings().cache_directory)


@pytest.fixture(scope="module")
def three() -> Iterator[LocalBroker]:
    """A cluster of three nodes; each test leaves all of them running."""
    with start(None) as started:
        yield started


@pytest.fixture
def settings_of_three(three: LocalBroker, namespace: str, tmp_path: Path) -> Settings:
    return load_settings(bootstrap_servers=three.bootstrap_servers, namespace=namespace, data_directory=tmp_path / "headrace")


@worker(category="test", name="step")
async def step(args: dict[str, Any], ctx: Any) -> int:
    return int(args["number"])


@worker(category="test", name="until")
async def until(args: dict[str, Any], ctx: Any) -> int:
    async def there() -> bool:
        return await asyncio.to_thread(Path(args["file"]).exists)

    await eventually(there, within=300)
    return int(ctx.attempt)


async def test_the_kill_of_one_node_stops_no_job(three: LocalBroker, settings_of_three: Settings, tmp_path: Path) -> None:
    go, brokers = tmp_path / "go", Brokers(three)
    # A lease that three changes of leaders do not end on a busy machine, either.
    settings = with_engine(settings_of_three, lease_seconds=90.0)
    async with engine_with(settings, step, until), Client(settings) as client:
        in_flight = await client.enqueue(until, {"file": str(go)})
        assert (await ended(client, await client.enqueue(step, {"number": 1}))).result == 1
        for node in three.cluster.nodes:
            number = node.identity.node_id
            assert await brokers.whole(), "of three copies two are needed, and one node goes"
            await asyncio.to_thread(three.cluster.kill_node, number)
            try:
                # More than there are partitions, so that some of them were led by the node that is away.
                jobs = [await client.enqueue(step, {"number": each}, timeout=30) for each in range(20)]
                assert [(await ended(client, job)).result for job in jobs] == list(range(20))
            finally:
                await asyncio.to_thread(three.cluster.start_node, number)
        go.touch()
        done = await ended(client, in_flight)
        assert (done.status, done.result) == ("completed", 1), "the attempt that was in flight outlived three kills"


async def test_an_acknowledgement_means_two_copies(three: LocalBroker, settings_of_three: Settings) -> None:
    topics = Topics(settings_of_three.namespace)
    async with engine_with(settings_of_three, step), Client(settings_of_three) as client:
        assert (await ended(client, await client.enqueue(step, {"number": 1}))).status == "completed"
        admin: Any = AIOKafkaAdminClient(bootstrap_servers=three.bootstrap_servers)
        await admin.start()
        try:
            for topic in (topics.jobs_name("step"), topics.job_state.name):
                [described] = await admin.describe_topics([topic])
                assert {len(each["replicas"]) for each in described["partitions"]} == {3}
                [answer] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
                assert {entry[0]: entry[1] for entry in answer.resources[0][4]}["min.insync.replicas"] == "2"
        finally:
            await admin.close()
        for number in (1, 2):
            await asyncio.to_thread(three.cluster.kill_node, number)
        try:
            with pytest.raises(EnqueueTimeout):
                await client.enqueue(step, {"number": 2}, timeout=3)
        finally:
            # The first of them waits for the second: one node of three is no majority.
            await asyncio.gather(*(asyncio.to_thread(three.cluster.start_node, number) for number in (1, 2)))

        async def accepted() -> bool:
            try:
                return bool((await ended(client, await client.enqueue(step, {"number": 3}, timeout=10))).result == 3)
            except EnqueueTimeout:
                return False

        await eventually(accepted)


async def test_a_node_that_is_stopped_in_order_comes_back(three: LocalBroker) -> None:
    await asyncio.to_thread(three.cluster.stop_node, 2)
    assert [state.pid is not None for state in three.cluster.states()] == [True, False, True]
    assert three.cluster.ended_by_themselves() == set()
    await asyncio.to_thread(three.cluster.start_node, 2)
    seen = [describe_cluster(node.address(), timeout_seconds=30) for node in three.cluster.nodes]
    assert all(each is not None and 2 in each.broker_ids for each in seen), "whichever node a client asks, it hears of the one"
    # On a busy machine a cluster may leave out for a moment another node, which was slow to say that it lives.
    wait_until(lambda: all(state.serving for state in three.cluster.states()), "all three serve")
    os.kill(three.cluster.nodes[2].pid, signal.SIGKILL)
    wait_until(lambda: three.cluster.ended_by_themselves() == {3}, "the kill is noticed")
    await asyncio.to_thread(three.cluster.start_node, 3)
    with pytest.raises(LocalBrokerError, match="There is no node 4"):
        three.cluster.kill_node(4)


@pytest.mark.long
def test_the_command_runs_three_nodes_and_others_stop_kill_and_start_them(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in {"KAFKA_BOOTSTRAP_SERVERS"}}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    with ExitStack() as stack:
        owner = subprocess.Popen([*COMMAND, "--nodes", "3"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
        stack.callback(owner.communicate)
        stack.callback(owner.terminate)
        assert "3 nodes" in read_line(owner)
        address = read_line(owner).removeprefix("address: ")
        assert len(address.split(",")) == 3

        killed = run("kill", "--node", "1")
        assert killed.returncode == 0, killed.stderr
        assert "does not run, as was asked for" in killed.stdout.splitlines()[0]
        # The first address answers no more, and the folder's broker is found all the same.
        assert run("status").stdout.count("serves") == 2
        found = run()
        assert "There is nothing to start" in found.stdout
        stopped = run("stop", "--node", "3")
        assert "does not run, as was asked for" in stopped.stdout.splitlines()[2]
        assert run("start", "--node", "3").returncode == 0
        assert run("start", "--node", "1").returncode == 0
        assert run("status").stdout.count("serves, process") == 3
        wrong = run("kill", "--node", "9")
        assert (wrong.returncode, "There is no node 9" in wrong.stderr) == (2, True)
        other = run("--nodes", "1")
        assert (other.returncode, "has 3 node(s)" in other.stderr) == (2, True)

        assert run("stop").returncode == 0
        assert owner.wait(60) == 0
    assert processes_naming(tmp_path) == []
    none = run("status")
    assert (none.returncode, "No broker runs for this folder" in none.stderr) == (2, True)


@pytest.mark.long
def test_data_addresses_and_size_are_kept_across_a_restart(tmp_path: Path) -> None:
    with start(tmp_path) as first:
        with pytest.raises(LocalBrokerInUse, match=str(os.getpid())):
            start(tmp_path)
        # Also while the node that others would find in use first is down.
        first.cluster.kill_node(1)
        with pytest.raises(LocalBrokerInUse, match=str(os.getpid())):
            start(tmp_path)
    assert processes_naming(tmp_path) == []
    with start(tmp_path, nodes=None) as second:
        assert second.bootstrap_servers == first.bootstrap_servers
        found = describe_cluster(second.bootstrap_servers, timeout_seconds=30)
        assert found is not None
        assert (found.cluster_id, set(found.broker_ids)) == (first.cluster_id, {1, 2, 3})
    with pytest.raises(LocalBrokerError, match=r"of 3 node\(s\), and 1 were asked for.*--data-directory"):
        start(tmp_path, nodes=1)


@pytest.mark.parametrize("end", [LocalCluster.kill_node, LocalCluster.stop_node])
def test_whoever_looks_while_the_only_node_comes_back_never_finds_the_broker_gone(
    tmp_path: Path, end: Callable[[LocalCluster, int], None]
) -> None:
    with start(tmp_path, nodes=None) as broker:
        cluster, done, seen = broker.cluster, threading.Event(), set[tuple[bool, int]]()

        def look() -> None:
            while not done.is_set():
                seen.add((broker.running, len(cluster.ended_by_themselves())))

        looking = threading.Thread(target=look)
        looking.start()
        try:
            for _ in range(3):
                end(cluster, 1)
                assert not cluster.nodes[0].running
                cluster.start_node(1)
        finally:
            done.set()
            looking.join()
        assert seen == {(True, 0)}
        os.kill(cluster.nodes[0].pid, signal.SIGKILL)
        wait_until(lambda: not broker.running, "an end that nobody asked for is seen")


def test_a_node_that_does_not_serve_in_time_names_its_log_and_no_others_that_there_are_not(tmp_path: Path) -> None:
    with start(tmp_path, nodes=None) as broker:
        [node] = broker.cluster.nodes
        impatient = LocalCluster([node], start_timeout_seconds=0.0)
        impatient.kill_node(1)
        with pytest.raises(LocalBrokerError, match=re.escape(str(node.log_file))) as raised:
            impatient.start_node(1)
        assert "the others" not in str(raised.value)
        wait_until(lambda: broker.cluster.states()[0].serving, "it serves all the same, a little later", seconds=90)


def test_the_data_of_one_node_are_not_those_of_three(tmp_path: Path) -> None:
    with start(tmp_path, nodes=None):
        pass
    with pytest.raises(LocalBrokerError, match=r"of 1 node\(s\), and 3 were asked for.*--data-directory"):
        start(tmp_path, nodes=3)
    # Data of before there were several.
    (tmp_path / "nodes").unlink()
    with pytest.raises(LocalBrokerError, match=r"of 1 node\(s\)"):
        start(tmp_path, nodes=3)
