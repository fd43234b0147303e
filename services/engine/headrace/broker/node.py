"""One Kafka node: its directory, its ports, its process. A cluster is made of these; each starts, stops and dies alone."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace.broker.aot import AheadOfTimeCache
from headrace.broker.configuration import (
    CONTROLLER_LISTENER,
    HOST,
    INTERNAL_LISTENER,
    LOGGING_FILE,
    SECURE_PROTOCOLS,
    TEMPORARY_DIRECTORY,
    JavaCommand,
    LocalBrokerOptions,
    NodeConfiguration,
    java_arguments,
    listener_names,
    logging_properties,
    node_properties,
    render_properties,
)
from headrace.broker.installation import Installation
from headrace.broker.lock import held_lock
from headrace.broker.logs import LogTail
from headrace.broker.ports import HeldPorts, PortTaken
from headrace.broker.process import ProcessOptions, WatchedProcess
from headrace.broker.readiness import wait_until_ready
from headrace.broker.storage import format_log_directory, scram_credentials
from headrace.errors import LocalBrokerError

MAIN_CLASS = "kafka.Kafka"
START_ATTEMPTS = 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeIdentity:
    """Which node this is.

    Attributes:
        node_id: its number in the cluster, from 1.
        cluster_id: what the cluster is called in Kafka's metadata.
        directory: everything of the node lies here.
        removed_with_owner: a directory that goes when this process dies; None keeps all.
    """

    node_id: int
    cluster_id: str
    directory: Path
    removed_with_owner: Path | None = None


@dataclass(frozen=True, slots=True)
class JavaSettings:
    """What the Java process itself gets, beside Kafka's settings.

    Attributes:
        cache: the ahead-of-time cache to use when it is there.
        flags: further flags for Java.
        niceness: how far it yields to other processes.
        stop_seconds: how long it may take to end in order before it is killed.
    """

    cache: AheadOfTimeCache | None = None
    flags: tuple[str, ...] = ()
    niceness: int = 0
    stop_seconds: float = 10.0


class LocalNode:
    """A Kafka node on this machine, broker and controller in one.

    The order is `reserve_ports`, `launch`, `wait_until_ready`; after `stop` or `kill` it can be launched again, with its
    data and at the same addresses; `close` ends it for good. Nodes of one cluster reserve first, all of them, since each
    needs the others' ports.
    """

    def __init__(
        self, identity: NodeIdentity, installation: Installation, options: LocalBrokerOptions, java: JavaSettings
    ) -> None:
        self.identity = identity
        self._installation = installation
        self._options = options
        self._java = java
        self._ports = HeldPorts()
        self._process: WatchedProcess | None = None
        self._used_cache = False
        self.log_file = identity.directory / "logs" / "server.log"
        self._output_file = identity.directory / "logs" / "java.log"
        self._log = LogTail((self.log_file, self._output_file))

    @property
    def pid(self) -> int:
        """The process id of Java.

        Raises:
            LocalBrokerError: it has not been launched.
        """
        return self._launched().pid

    @property
    def watchdog_pid(self) -> int:
        """The process id of the program that watches over Java."""
        return self._launched().watchdog_pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def controller_port(self) -> int:
        """Where the cluster's controllers talk to each other."""
        return self._ports.numbers[CONTROLLER_LISTENER]

    def address(self, listener: str = INTERNAL_LISTENER) -> str:
        """host:port of a listener: PLAINTEXT, or one of the security options' protocols.

        Raises:
            LocalBrokerError: the node has no such listener.
        """
        if listener not in self._ports.numbers:
            raise LocalBrokerError(f"The local broker was started without a listener for {listener}.")
        return f"{'localhost' if listener in SECURE_PROTOCOLS else HOST}:{self._ports.numbers[listener]}"

    @property
    def cache_may_be_at_fault(self) -> bool:
        """Whether it ended as it would with a damaged ahead-of-time cache: that makes Java crash, not complain."""
        return not self.running and self._used_cache and not self._port_was_taken()

    def reserve_ports(self) -> None:
        """Take a port for each listener, those of the last start if they are free.

        Raises:
            LocalBrokerError: the port that was asked for is in use.
        """
        self.identity.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.log_file.parent.mkdir(exist_ok=True)
        required = {INTERNAL_LISTENER: self._options.port} if self._options.port else {}
        try:
            self._ports.hold(listener_names(self._options), required=required, preferred=self._remembered_ports())
        except PortTaken as error:
            raise LocalBrokerError(
                f"Port {error.port} is in use by another program. Choose another with --port, or none for any free one."
            ) from error

    def launch(self, voters: Mapping[int, int], *, without_cache: bool = False) -> None:
        """Start the process; do not wait until it serves.

        Args:
            voters: the controller's port of every node of the cluster, by node id.
            without_cache: leave the ahead-of-time cache aside.

        Raises:
            LocalBrokerInUse: another process runs a broker on the same data.
            LocalBrokerError: Java cannot be started.
        """
        if self.running:
            return
        directory = self.identity.directory
        with held_lock(directory) as lock:
            log_directory = directory / "data"
            security = self._options.security
            format_log_directory(
                log_directory,
                cluster_id=self.identity.cluster_id,
                node_id=self.identity.node_id,
                now=time.time(),
                credentials=scram_credentials(security.users) if security else (),
            )
            configuration = NodeConfiguration(
                node_id=self.identity.node_id,
                ports=self._ports.numbers,
                voters=voters,
                log_directory=log_directory,
                options=self._options,
            )
            properties_file = directory / "server.properties"
            properties_file.write_text(render_properties(node_properties(configuration)))
            (directory / TEMPORARY_DIRECTORY).mkdir(exist_ok=True)
            (directory / LOGGING_FILE).write_text(render_properties(logging_properties(self.log_file)))
            _ports_file(directory).write_text(json.dumps(self._ports.numbers))
            if self._process is not None:
                self._process.kill()  # it has ended; its watchdog's pipe is closed by this
            self._log.begin()
            self._ports.before_start()
            self._process = WatchedProcess(
                [*self._java_command(without_cache=without_cache), MAIN_CLASS, str(properties_file)],
                ProcessOptions(
                    output=self._output_file,
                    inherited=(lock,),
                    removed=self.identity.removed_with_owner,
                    niceness=self._java.niceness,
                    grace_seconds=self._java.stop_seconds,
                ),
            )

    def wait_until_ready(self, *, given_up: Callable[[], bool] = lambda: False) -> bool:
        """Wait until the node serves topics, groups and producers.

        Returns:
            False when it ended, the time was over, or `given_up` said so.
        """
        return wait_until_ready(
            HOST,
            self._ports.numbers[INTERNAL_LISTENER],
            cluster_id=self.identity.cluster_id,
            timeout_seconds=self._options.start_timeout_seconds,
            still_starting=lambda: self.running and not given_up(),
        )

    def start(self) -> None:
        """Launch a node that is a cluster by itself, wait until it serves, and try again where that can help.

        Raises:
            LocalBrokerInUse: another process runs a broker on the same data.
            LocalBrokerError: it does not come up; the message has the end of its log.
        """
        try:
            self._start()
        except OSError as error:
            raise LocalBrokerError(
                f"The broker's directory {self.identity.directory} cannot be used ({error}); "
                "choose one that can be written with --data-directory or HEADRACE_DATA_DIRECTORY."
            ) from error

    def _start(self) -> None:
        without_cache = False
        for _ in range(START_ATTEMPTS):
            if not self._ports.numbers:
                self.reserve_ports()
            self.launch({self.identity.node_id: self.controller_port}, without_cache=without_cache)
            if self.wait_until_ready():
                if without_cache and self._java.cache is not None:
                    # It was the cache's fault. The next start finds none, and has it made anew.
                    self._java.cache.discard()
                return
            ended_by_itself = not self.running
            self._launched().kill()
            if ended_by_itself and self._used_cache and not self._port_was_taken():
                # A damaged cache makes Java crash, not complain.
                logger.warning("the broker did not start with its ahead-of-time cache; trying without")
                without_cache = True
            elif self._port_was_taken() and not self._options.port:
                self._forget_ports()
            else:
                break
        raise LocalBrokerError(self.failure(ended_by_itself=ended_by_itself))

    def stop(self) -> None:
        """End the process in order. It can be launched again. Does nothing when it does not run."""
        if self._process is not None:
            self._process.stop()

    def request_stop(self) -> None:
        """Ask the process to end, and do not wait for it."""
        self._launched().request_stop()

    def wait(self, timeout_seconds: float) -> int | None:
        """Wait for the process to end. Returns its exit code, or None when the time is over."""
        return self._launched().wait(timeout_seconds)

    def kill(self) -> None:
        """End the process at once, as a crash would. It can be launched again."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the process for good and give its ports back."""
        self.stop()
        self._ports.release()

    def _launched(self) -> WatchedProcess:
        if self._process is None:
            raise LocalBrokerError("The local broker has not been started.")
        return self._process

    def _java_command(self, *, without_cache: bool) -> list[str]:
        flags = self._java.flags
        if self._java.cache is not None and not without_cache:
            flags += self._java.cache.flags()
        self._used_cache = flags != self._java.flags
        return java_arguments(
            JavaCommand(
                java=self._installation.java,
                jars=self._installation.jars,
                heap_megabytes=self._options.heap_megabytes,
                directory=self.identity.directory,
                flags=flags,
            )
        )

    def _port_was_taken(self) -> bool:
        return "BindException" in self._log.text()

    def _forget_ports(self) -> None:
        self._ports.release()
        self._ports = HeldPorts()
        _ports_file(self.identity.directory).unlink(missing_ok=True)

    def failure(self, *, ended_by_itself: bool) -> str:
        """Why the node is not ready, for a message."""
        how = f"(Java's exit code {self._launched().poll()})" if ended_by_itself else "in time"
        return f"Kafka did not come up {how}. The end of its log, {self.log_file}:\n{self._log.text()}"

    def _remembered_ports(self) -> dict[str, int]:
        try:
            remembered = json.loads(_ports_file(self.identity.directory).read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return {str(name): int(port) for name, port in remembered.items()} if isinstance(remembered, dict) else {}


def _ports_file(directory: Path) -> Path:
    return directory / "ports.json"
