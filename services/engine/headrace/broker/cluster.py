"""The nodes of one cluster on this machine: started together, and each stopped, killed and started again by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from headrace.broker.node import LocalNode
from headrace.broker.readiness import describe_cluster
from headrace.errors import LocalBrokerError

POLL_SECONDS = 0.05
ANSWER_SECONDS = 2.0
NOTICE_SECONDS = 10.0

_BEING_ENDED = "The cluster is being ended."


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """How a node is doing.

    Attributes:
        number: its number in the cluster, from 1.
        address: host:port of its plain listener.
        pid: the process id of Java; None when it does not run.
        serving: whether it is among those to whom the cluster sends its clients.
        on_request: whether it does not run because somebody asked for that.
    """

    number: int
    address: str
    pid: int | None
    serving: bool
    on_request: bool


class LocalCluster:
    """Kafka nodes on this machine that make one cluster. Its methods block, and may be called from any thread."""

    def __init__(self, nodes: Sequence[LocalNode], *, start_timeout_seconds: float) -> None:
        self.nodes = tuple(nodes)
        self._start_timeout_seconds = start_timeout_seconds
        self._changing = threading.RLock()
        self._closing = threading.Event()
        self._ended_on_request: set[int] = set()

    @property
    def bootstrap_servers(self) -> str:
        """The addresses of all nodes, those that do not run among them."""
        return ",".join(node.address() for node in self.nodes)

    @property
    def running(self) -> bool:
        """Whether any node runs, or none does because somebody asked for that."""
        return not all(self._has_ended_by_itself(node) for node in self.nodes)

    def ended_by_themselves(self) -> set[int]:
        """The numbers of the nodes that do not run, and that nobody has asked to end."""
        return {node.identity.node_id for node in self.nodes if self._has_ended_by_itself(node)}

    def _has_ended_by_itself(self, node: LocalNode) -> bool:
        # Another thread may just stop or start the node: asked for before and after, no moment of that looks like its end.
        number, requested = node.identity.node_id, self._ended_on_request
        return not (number in requested or node.running or number in requested)

    def start(self) -> None:
        """Start every node, and wait until they serve and each knows all others.

        Raises:
            LocalBrokerInUse: another process runs a broker on the same data.
            LocalBrokerError: they do not come up; the message has the end of a log.
        """
        if len(self.nodes) == 1:
            self.nodes[0].start()
            return
        directory = self.nodes[0].identity.directory.parent
        try:
            self._start_together()
        except OSError as error:
            raise LocalBrokerError(
                f"The cluster's directory {directory} cannot be used ({error}); "
                "choose one that can be written with --data-directory or HEADRACE_DATA_DIRECTORY."
            ) from error

    def _start_together(self) -> None:
        # Each is told the ports of all.
        for node in self.nodes:
            node.reserve_ports()
        failed = self._try_to_start(without_cache=False)
        if failed is not None and failed.cache_may_be_at_fault:
            failed = self._try_to_start(without_cache=True)
        if failed is not None:
            message = failed.failure(ended_by_itself=not failed.running)
            self._kill_all()
            raise LocalBrokerError(message)

    def _try_to_start(self, *, without_cache: bool) -> LocalNode | None:
        """Starts all nodes; one that did not come up, or None when all did."""
        if without_cache:
            self._kill_all()
        for node in self.nodes:
            node.launch(self._voters(), without_cache=without_cache)
        deadline = time.monotonic() + self._start_timeout_seconds
        for node in self.nodes:
            if not node.wait_until_ready(given_up=self._some_ended):
                return next((each for each in self.nodes if not each.running), node)
        everybody = {node.identity.node_id for node in self.nodes}
        for node in self.nodes:
            if not self._await_registration(node, everybody, deadline, self._some_ended):
                return next((each for each in self.nodes if not each.running), node)
        return None

    def _some_ended(self) -> bool:
        return not all(node.running for node in self.nodes)

    def _voters(self) -> dict[int, int]:
        return {node.identity.node_id: node.controller_port for node in self.nodes}

    def _await_registration(self, node: LocalNode, wanted: set[int], deadline: float, given_up: Callable[[], bool]) -> bool:
        """Waits until a node itself names all of these as brokers that take requests."""
        while not given_up() and time.monotonic() < deadline:
            found = describe_cluster(node.address(), timeout_seconds=ANSWER_SECONDS)
            if found is not None and wanted <= set(found.broker_ids):
                return True
            time.sleep(POLL_SECONDS)
        return False

    def _await_notice(self, number: int, deadline: float, given_up: Callable[[], bool]) -> None:
        """Waits until the other nodes send their clients to this one, too: each hears of it by itself, and not at once.

        Not for long: this one serves, and another may hang.
        """
        deadline = min(deadline, time.monotonic() + NOTICE_SECONDS)

        def in_vain(other: LocalNode) -> Callable[[], bool]:
            return lambda: given_up() or not other.running

        for other in self.nodes:
            if other.identity.node_id != number:
                self._await_registration(other, {number}, deadline, in_vain(other))

    # --- one node ---------------------------------------------------------------------------------------------------------

    def start_node(self, number: int) -> None:
        """Start a node again, with its data and at its address, and wait until it serves and the others have heard of it.

        One that runs is left as it is.

        Raises:
            LocalBrokerError: there is no such node, or it does not serve in time; then it runs on, and may do so yet.
        """
        with self._change(number) as node:
            was_running = node.running
            if not was_running:
                node.launch(self._voters())
            # Not before there is a process: whoever looks in between would see a node that has ended by itself.
            self._ended_on_request.discard(number)
            if was_running:
                return
            deadline = time.monotonic() + self._start_timeout_seconds

            def given_up() -> bool:
                return not node.running or self._closing.is_set()

            if node.wait_until_ready(given_up=given_up) and self._await_registration(node, {number}, deadline, given_up):
                self._await_notice(number, deadline, given_up)
                return
            if not node.running:
                raise LocalBrokerError(node.failure(ended_by_itself=True))
            raise LocalBrokerError(self._not_serving(node))

    def _not_serving(self, node: LocalNode) -> str:
        if self._closing.is_set():
            return _BEING_ENDED
        needed = len(self.nodes) // 2 + 1
        others = f" A cluster of {len(self.nodes)} needs {needed} nodes that run: start the others, too." if needed > 1 else ""
        return f"Node {node.identity.node_id} runs and does not serve yet.{others} Its log is {node.log_file}."

    def stop_node(self, number: int) -> None:
        """End a node in order, as a restart does; where the rest of the cluster is gone, it is killed after 10 s.

        Raises:
            LocalBrokerError: there is no such node.
        """
        with self._change(number) as node:
            self._ended_on_request.add(number)
            node.stop()

    def kill_node(self, number: int) -> None:
        """End a node at once by SIGKILL, as a crash would.

        Raises:
            LocalBrokerError: there is no such node.
        """
        with self._change(number) as node:
            self._ended_on_request.add(number)
            node.kill()

    def states(self) -> list[NodeState]:
        """How each node is doing."""
        described = describe_cluster(self.bootstrap_servers, timeout_seconds=ANSWER_SECONDS)
        serving = set(described.broker_ids) if described is not None else set()
        return [
            NodeState(
                number=node.identity.node_id,
                address=node.address(),
                pid=node.pid if node.running else None,
                serving=node.running and node.identity.node_id in serving,
                on_request=node.identity.node_id in self._ended_on_request,
            )
            for node in self.nodes
        ]

    @contextmanager
    def _change(self, number: int) -> Iterator[LocalNode]:
        node = next((each for each in self.nodes if each.identity.node_id == number), None)
        if node is None:
            known = "1 alone" if len(self.nodes) == 1 else f"1 to {len(self.nodes)}"
            raise LocalBrokerError(f"There is no node {number}: the cluster has {known}.")
        with self._changing:
            if self._closing.is_set():
                raise LocalBrokerError(_BEING_ENDED)
            yield node

    # --- the end ----------------------------------------------------------------------------------------------------------

    def close(self, *, in_order: bool = True) -> None:
        """End all nodes for good, and give their ports back.

        Args:
            in_order: let each write what it has to; otherwise they are killed, which is quicker where the data go anyway.
        """
        self._closing.set()
        with self._changing:
            if in_order:
                # One after another, the last would wait for a majority that is gone.
                for node in self.nodes:
                    if node.running:
                        node.request_stop()
            else:
                self._kill_all()
            for node in self.nodes:
                node.close()

    def _kill_all(self) -> None:
        for node in self.nodes:
            node.kill()
