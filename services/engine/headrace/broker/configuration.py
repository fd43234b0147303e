"""What a node is told: its properties, its logging, its command line. Pure: nothing here touches a file or a socket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headrace.errors import ConfigurationError

HOST = "127.0.0.1"
INTERNAL_LISTENER = "PLAINTEXT"
CONTROLLER_LISTENER = "CONTROLLER"
LOGGING_FILE = "log4j2.properties"
TEMPORARY_DIRECTORY = "tmp"
# Serial collection and the quick compiler make for a quick start. After a crash nothing is left in the user's folder, and
# after a kill nothing in the system's temporary one.
JAVA_FLAGS = (
    "-Xms32m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-CreateCoredumpOnCrash",
    "-XX:-UsePerfData",
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
    "-Djava.awt.headless=true",
)
MOST_NODES = 5
SECURE_PROTOCOLS = ("SASL_PLAINTEXT", "SASL_SSL", "SSL")


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityOptions:
    """Listeners beside the plain one, on which clients must show who they are.

    Attributes:
        protocols: any of SASL_PLAINTEXT, SASL_SSL, SSL; each gets a listener and a free port of its own.
        users: name and password; each may log in by PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512.
        keystore: a PKCS12 file with the certificate and key of `localhost`; needed for SASL_SSL and SSL.
        keystore_password: opens it.
        truststore: a PKCS12 file with the authorities whose client certificates the SSL listener asks for; None asks
            for none.
        truststore_password: opens it.
    """

    protocols: tuple[str, ...]
    users: Mapping[str, str] = field(default_factory=dict)
    keystore: Path | None = None
    keystore_password: str = ""
    truststore: Path | None = None
    truststore_password: str = ""

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.protocols) - set(SECURE_PROTOCOLS)):
            raise ConfigurationError(f"Unknown security protocols {unknown}; there are {', '.join(SECURE_PROTOCOLS)}.")
        if self.keystore is None and {"SASL_SSL", "SSL"} & set(self.protocols):
            raise ConfigurationError("A listener with TLS needs a keystore.")
        if not self.users and {"SASL_SSL", "SASL_PLAINTEXT"} & set(self.protocols):
            raise ConfigurationError("A listener with SASL needs at least one user.")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalBrokerOptions:
    """How a broker on this machine is to be.

    Attributes:
        nodes: how many there are, from 1 to 5; None takes as many as the data belong to, one where there are none. With three
            each partition has three copies, and any one node may be away.
        port: the first node's plain listener's; 0 takes the one of the last start when it is still free, else any free one.
        automatic_topic_creation: whether a topic that a client names comes into being, as by Kafka's default.
        security: listeners with SASL or TLS beside the plain one.
        ahead_of_time_cache: whether to use the cache that makes later starts quick, and to make it, in the background,
            when there is none.
        ephemeral: whether the data directory is removed when the broker is closed, or its owner dies.
        heap_megabytes: the most that Java may use for objects.
        start_timeout_seconds: how long to wait until it is ready.
        properties: further settings of Kafka's, over ours.
    """

    nodes: int | None = None
    port: int = 0
    automatic_topic_creation: bool = True
    security: SecurityOptions | None = None
    ahead_of_time_cache: bool = True
    ephemeral: bool = False
    heap_megabytes: int = 256
    start_timeout_seconds: float = 60.0
    properties: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.nodes is not None and not 1 <= self.nodes <= MOST_NODES:
            raise ConfigurationError(f"A cluster on this machine has 1 to {MOST_NODES} nodes, and not {self.nodes}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfiguration:
    """One node of a cluster.

    Attributes:
        node_id: its number, from 1.
        ports: of each listener by name, CONTROLLER among them.
        voters: the controller's port of every node of the cluster, this one among them, by its number.
        log_directory: where its data lie.
        options: how the broker is to be.
    """

    node_id: int
    ports: Mapping[str, int]
    voters: Mapping[int, int]
    log_directory: Path
    options: LocalBrokerOptions


def listener_names(options: LocalBrokerOptions) -> tuple[str, ...]:
    """Every listener of a node: the plain one, the secure ones, the controller's."""
    secure = options.security.protocols if options.security else ()
    return (INTERNAL_LISTENER, *secure, CONTROLLER_LISTENER)


def node_properties(node: NodeConfiguration) -> dict[str, str]:
    """The content of `server.properties`, as names and values.

    Raises:
        ConfigurationError: the data directory's name has a comma, which Kafka takes for two directories.
    """
    if "," in str(node.log_directory):
        raise ConfigurationError(f"Kafka's data directory must have no comma in its name: {node.log_directory}")
    replicas = str(min(3, len(node.voters)))
    # An acknowledged record is on two nodes, so that any one may go; where there are fewer than three, none may wait for another.
    in_sync = "2" if len(node.voters) >= 3 else "1"
    properties = {
        "process.roles": "broker,controller",
        "node.id": str(node.node_id),
        "controller.quorum.voters": ",".join(f"{number}@{HOST}:{port}" for number, port in node.voters.items()),
        "controller.listener.names": CONTROLLER_LISTENER,
        "inter.broker.listener.name": INTERNAL_LISTENER,
        "listeners": ",".join(f"{name}://{HOST}:{port}" for name, port in node.ports.items()),
        "advertised.listeners": ",".join(
            f"{name}://{_advertised_host(name)}:{port}" for name, port in node.ports.items() if name != CONTROLLER_LISTENER
        ),
        "listener.security.protocol.map": ",".join(
            f"{name}:{INTERNAL_LISTENER if name == CONTROLLER_LISTENER else name}" for name in node.ports
        ),
        "log.dirs": str(node.log_directory),
        "auto.create.topics.enable": "true" if node.options.automatic_topic_creation else "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        # Few partitions for Kafka's own topics: each costs files and time at every start.
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.num.partitions": "2",
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.num.partitions": "2",
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        "group.initial.rebalance.delay.ms": "0",
        # A broker that was killed can register again once its old session is over: 9 s by default.
        "broker.session.timeout.ms": "2000",
        "broker.heartbeat.interval.ms": "300",
        # Files are allocated whole: the defaults, 1 GB and 10 MB a partition, are for servers.
        "log.segment.bytes": str(32 * 1024 * 1024),
        "log.index.size.max.bytes": str(1024 * 1024),
        "log.cleaner.dedupe.buffer.size": str(4 * 1024 * 1024),
    }
    if node.options.security is not None:
        properties |= _security_properties(node.options.security)
    return properties | dict(node.options.properties)


def _advertised_host(listener: str) -> str:
    # A certificate is made for the name; the plain listener needs no resolver.
    return "localhost" if listener in SECURE_PROTOCOLS else HOST


def _security_properties(security: SecurityOptions) -> dict[str, str]:
    properties: dict[str, str] = {}
    if security.users:
        properties["sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"
    users = "".join(f" user_{_jaas(name)}={_jaas_quoted(word)}" for name, word in security.users.items())
    plain = f"org.apache.kafka.common.security.plain.PlainLoginModule required{users};"
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    for protocol in security.protocols:
        prefix = f"listener.name.{protocol.lower()}."
        if protocol.startswith("SASL"):
            properties[f"{prefix}plain.sasl.jaas.config"] = plain
            properties[f"{prefix}scram-sha-256.sasl.jaas.config"] = scram
            properties[f"{prefix}scram-sha-512.sasl.jaas.config"] = scram
        if protocol.endswith("SSL"):
            properties |= _tls_properties(prefix, security)
    return properties


def _tls_properties(prefix: str, security: SecurityOptions) -> dict[str, str]:
    properties = {
        f"{prefix}ssl.keystore.type": "PKCS12",
        f"{prefix}ssl.keystore.location": str(security.keystore),
        f"{prefix}ssl.keystore.password": security.keystore_password,
        f"{prefix}ssl.key.password": security.keystore_password,
    }
    if security.truststore is not None:
        properties |= {
            f"{prefix}ssl.truststore.type": "PKCS12",
            f"{prefix}ssl.truststore.location": str(security.truststore),
            f"{prefix}ssl.truststore.password": security.truststore_password,
        }
        if prefix == "listener.name.ssl.":
            properties[f"{prefix}ssl.client.auth"] = "required"
    return properties


def _jaas(name: str) -> str:
    if not name.replace("-", "").replace("_", "").isalnum():
        raise ConfigurationError(f"A user of the local broker is letters, digits, - and _: {name!r}")
    return name


def _jaas_quoted(password: str) -> str:
    escaped = password.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def logging_properties(log_file: Path) -> dict[str, str]:
    """Log4j's settings: warnings and errors, in one file that rolls over twice."""
    return {
        "status": "error",
        "name": "headrace-broker",
        "appender.file.type": "RollingFile",
        "appender.file.name": "file",
        "appender.file.fileName": str(log_file),
        "appender.file.filePattern": f"{log_file}.%i",
        "appender.file.layout.type": "PatternLayout",
        "appender.file.layout.pattern": "%d{ISO8601} %p %c: %m%n",
        "appender.file.policies.type": "Policies",
        "appender.file.policies.size.type": "SizeBasedTriggeringPolicy",
        "appender.file.policies.size.size": "10MB",
        "appender.file.strategy.type": "DefaultRolloverStrategy",
        "appender.file.strategy.max": "2",
        "rootLogger.level": "warn",
        "rootLogger.appenderRef.file.ref": "file",
    }


def render_properties(properties: Mapping[str, str]) -> str:
    """A Java properties file, in ASCII: Java reads such a file as Latin-1."""
    return "".join(f"{name}={_escaped(value)}\n" for name, value in properties.items())


def _escaped(value: str) -> str:
    escaped = []
    for character in value.replace("\\", "\\\\"):
        if " " < character <= "~":
            escaped.append(character)
        elif character == " ":
            escaped.append("\\ " if not escaped else " ")
        else:
            units = character.encode("utf-16-be")
            escaped += [f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2)]
    return "".join(escaped)


@dataclass(frozen=True, slots=True, kw_only=True)
class JavaCommand:
    """How Java is started for a node.

    Attributes:
        java: the program.
        jars: the class path, in order.
        heap_megabytes: the most it may use for objects.
        directory: where Log4j's settings lie (LOGGING_FILE), and where Java's own files go.
        flags: what uses, or makes, a cache of loaded classes.
    """

    java: Path
    jars: Sequence[Path]
    heap_megabytes: int
    directory: Path
    flags: tuple[str, ...] = ()


def java_arguments(command: JavaCommand) -> list[str]:
    """The command line up to the main class."""
    return [
        str(command.java),
        f"-Xmx{command.heap_megabytes}m",
        *JAVA_FLAGS,
        f"-XX:ErrorFile={command.directory / 'java-crash.log'}",
        f"-Djava.io.tmpdir={command.directory / TEMPORARY_DIRECTORY}",
        f"-Dlog4j2.configurationFile={(command.directory / LOGGING_FILE).absolute().as_uri()}",
        *command.flags,
        "-cp",
        ":".join(str(jar) for jar in command.jars),
    ]
