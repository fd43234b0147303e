"""A real Apache Kafka on this machine, from Python packages alone."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from headrace.broker.aot import AheadOfTimeCache
from headrace.broker.base import BrokerKind, OwnedBroker
from headrace.broker.cluster import LocalCluster
from headrace.broker.configuration import INTERNAL_LISTENER, LocalBrokerOptions
from headrace.broker.installation import default_cache_directory, provide_installation
from headrace.broker.jars import KAFKA_VERSION
from headrace.broker.lock import held_lock
from headrace.broker.node import JavaSettings, LocalNode, NodeIdentity
from headrace.broker.storage import new_id
from headrace.broker.training import BackgroundTraining, wait_for_cache
from headrace.errors import LocalBrokerError


class LocalBroker(OwnedBroker):
    """A cluster of one node or several that runs as children of this process and never outlives it.

    Attributes:
        cluster: its nodes; each can be killed, stopped and started by itself.
        data_directory: where everything of it lies.
    """

    kind: BrokerKind = "local"

    def __init__(self, cluster: LocalCluster, data_directory: Path, *, ephemeral: bool) -> None:
        super().__init__()
        self.cluster = cluster
        self.data_directory = data_directory
        self._ephemeral = ephemeral
        self._held = contextlib.ExitStack()

    @property
    def node(self) -> LocalNode:
        """The first node, or the only one: it can be killed, stopped and started by itself."""
        return self.cluster.nodes[0]

    @property
    def bootstrap_servers(self) -> str:
        return self.cluster.bootstrap_servers

    @property
    def cluster_id(self) -> str:
        """The cluster's name in Kafka's metadata; it stays with the data."""
        return self.node.identity.cluster_id

    @property
    def description(self) -> str:
        kept = "thrown away at the end" if self._ephemeral else f"kept in {self.data_directory}"
        several = f", {len(self.cluster.nodes)} nodes" if len(self.cluster.nodes) > 1 else ""
        return f"local: Apache Kafka {KAFKA_VERSION} on this machine{several} at {self.bootstrap_servers}, its data {kept}"

    def address(self, listener: str = INTERNAL_LISTENER) -> str:
        """host:port of a listener of the first node: PLAINTEXT, or a protocol of the security options.

        Raises:
            LocalBrokerError: there is no such listener.
        """
        return self.node.address(listener)

    @property
    def running(self) -> bool:
        return self.cluster.running

    def start(self) -> None:
        """Start every node, and wait until they serve. Raises as `start_local_broker`."""
        if len(self.cluster.nodes) > 1:
            # A node's own lock is free while that node is down, and its cluster is in use all the same.
            self._held.enter_context(held_lock(self.data_directory))
        self.cluster.start()

    def _end(self) -> None:
        with self._held:
            self.cluster.close(in_order=not self._ephemeral or len(self.cluster.nodes) == 1)
            if self._ephemeral:
                shutil.rmtree(self.data_directory, ignore_errors=True)


def start_local_broker(
    data_directory: Path | None, options: LocalBrokerOptions | None = None, *, cache_directory: Path | None = None
) -> LocalBroker:
    """Start a broker on this machine and wait until it serves topics, consumer groups and producers.

    It ends when `stop` is called, or this process ends, in whatever way. Blocks, about 1.5 s: call it by
    `asyncio.to_thread` where an event loop runs. The first start ever fetches Kafka over the network.

    Args:
        data_directory: where its data lie; made if missing, kept unless the options say otherwise. One broker at a time.
            None takes a temporary directory, which goes with the broker, or with this process.
        options: how it is to be.
        cache_directory: where Kafka's jars are kept; the user's cache folder when None.

    Raises:
        LocalBrokerInUse: another process runs a broker on the same data.
        LocalBrokerError: it cannot be had or does not come up; the message says why.
        ConfigurationError: the options are wrong.
    """
    chosen = options or LocalBrokerOptions()
    cache_root = cache_directory or default_cache_directory()
    installation = provide_installation(cache_root)
    cache = AheadOfTimeCache.of(cache_root, installation.fingerprint) if chosen.ahead_of_time_cache else None
    ephemeral = chosen.ephemeral or data_directory is None
    try:
        directory = (data_directory or Path(tempfile.mkdtemp(prefix="headrace-broker-"))).expanduser().absolute()
        directory.mkdir(parents=True, exist_ok=True)
        cluster_id = _cluster_id(directory)
        count = _node_count(directory, chosen.nodes)
    except OSError as error:
        raise LocalBrokerError(f"The broker's data directory cannot be used: {error}") from error
    nodes = [
        LocalNode(
            NodeIdentity(
                node_id=number,
                cluster_id=cluster_id,
                directory=directory / f"node-{number}",
                removed_with_owner=directory if ephemeral else None,
            ),
            installation,
            # Nobody but the first can have the port that was asked for.
            chosen if number == 1 else replace(chosen, port=0),
            JavaSettings(cache=cache),
        )
        for number in range(1, count + 1)
    ]
    cluster = LocalCluster(nodes, start_timeout_seconds=chosen.start_timeout_seconds)
    broker = LocalBroker(cluster, directory, ephemeral=ephemeral)
    with contextlib.ExitStack() as undo:
        undo.callback(broker.stop)
        broker.start()
        undo.pop_all()
    if cache is not None and not cache.is_usable():
        broker.before_stop(BackgroundTraining(cache, installation).cancel)
    return broker


def fetch_local_broker(cache_directory: Path | None = None) -> Path:
    """Get all that later starts need: Kafka's jars, and the ahead-of-time cache. Returns the cache directory.

    Raises:
        LocalBrokerError: something cannot be had; the message says what.
    """
    cache_root = cache_directory or default_cache_directory()
    installation = provide_installation(cache_root)
    wait_for_cache(AheadOfTimeCache.of(cache_root, installation.fingerprint), installation)
    return cache_root


def _node_count(directory: Path, wanted: int | None) -> int:
    """How many nodes the data belong to, noted at the first start; what is wanted, or one, where there are no data.

    Raises:
        LocalBrokerError: the data belong to a cluster of another size.
    """
    path = directory / "nodes"
    if not path.exists():
        # Before clusters had several nodes, no count was noted.
        count = 1 if (directory / "node-1").exists() else wanted or 1
        _write_first(path, str(count))
    count = int(path.read_text(encoding="ascii"))
    if wanted is not None and wanted != count:
        raise LocalBrokerError(
            f"{directory} has the data of a cluster of {count} node(s), and {wanted} were asked for. Leave out --nodes, choose "
            "another --data-directory, or delete this one: its jobs go with it."
        )
    return count


def _cluster_id(directory: Path) -> str:
    """The id that the data belong to; made at the first start, by whoever comes first."""
    path = directory / "cluster-id"
    if not path.exists():
        _write_first(path, new_id())
    return path.read_text(encoding="ascii").strip()


def _write_first(path: Path, line: str) -> None:
    """Writes a file of one line, unless another process was first."""
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent, text=True)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(line + "\n")
        # A link, unlike a rename, fails when another process was first.
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        Path(draft).unlink()
