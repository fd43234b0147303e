"""A broker in a container, for those who ask for one. Nothing here is imported unless they do."""

from __future__ import annotations

import contextlib
import logging
from typing import Literal, Protocol

from headrace.broker.base import BrokerKind, OwnedBroker
from headrace.broker.readiness import describe_cluster
from headrace.errors import LocalBrokerError

ContainerImage = Literal["redpanda", "kafka"]

IMAGES: dict[ContainerImage, str] = {
    "redpanda": "redpandadata/redpanda:v25.3.9",
    "kafka": "confluentinc/cp-kafka:7.9.6",
}
START_SECONDS = 60
ANSWER_SECONDS = 10.0

logger = logging.getLogger(__name__)


class _Container(Protocol):
    """What Redpanda's and Kafka's containers have in common."""

    def start(self, timeout: int = ...) -> object: ...

    def stop(self) -> None: ...

    def get_bootstrap_server(self) -> str: ...


class ContainerBroker(OwnedBroker):
    """Redpanda or Kafka in a container; its data go with it. Testcontainers' reaper removes it when this process dies."""

    kind: BrokerKind = "docker"

    def __init__(self, container: _Container, image: ContainerImage, cluster_id: str) -> None:
        super().__init__()
        self._container = container
        self._image = image
        self._cluster_id = cluster_id
        self._bootstrap_servers = container.get_bootstrap_server()

    @property
    def bootstrap_servers(self) -> str:
        return self._bootstrap_servers

    @property
    def cluster_id(self) -> str:
        return self._cluster_id

    @property
    def description(self) -> str:
        return f"docker: {IMAGES[self._image]} in a container at {self.bootstrap_servers}, its data thrown away at the end"

    @property
    def running(self) -> bool:
        return describe_cluster(self._bootstrap_servers, timeout_seconds=ANSWER_SECONDS) is not None

    def _end(self) -> None:
        self._container.stop()


def start_container_broker(image: ContainerImage = "redpanda", *, port: int = 0) -> ContainerBroker:
    """Start a broker in a container and wait until it answers. Blocks for some seconds, longer when it pulls the image.

    Args:
        image: which broker.
        port: where it listens on this machine; 0 takes a free port.

    Raises:
        LocalBrokerError: the extra `headrace[docker]` is not installed, no Docker engine answers, or it does not start.
    """
    container = _container(image, port)
    with contextlib.ExitStack() as undo:
        undo.callback(container.stop)
        try:
            container.start(timeout=START_SECONDS)
        except Exception as error:  # Docker's client, its HTTP library and testcontainers have no common root
            raise LocalBrokerError(f"{IMAGES[image]} did not start: {type(error).__name__}: {error}") from error
        address = container.get_bootstrap_server()
        description = describe_cluster(address, timeout_seconds=ANSWER_SECONDS)
        if description is None:
            raise LocalBrokerError(f"{IMAGES[image]} was started, but does not answer at {address}.")
        broker = ContainerBroker(container, image, description.cluster_id or "")
        undo.pop_all()
    return broker


def _container(image: ContainerImage, port: int) -> _Container:
    try:
        from testcontainers.community.kafka import KafkaContainer, RedpandaContainer
    except ImportError as error:
        raise LocalBrokerError(
            "A broker in a container needs testcontainers. Install it with: pip install 'headrace[docker]'"
        ) from error
    try:
        if image == "redpanda":
            redpanda = RedpandaContainer(IMAGES[image])
            if port:
                redpanda.with_bind_ports(redpanda.redpanda_port, port)
            return _typed(redpanda)
        kafka = KafkaContainer(IMAGES[image]).with_kraft()
        if port:
            kafka.with_bind_ports(kafka.port, port)
        return _typed(kafka)
    except Exception as error:  # Docker's client has no types to name it by
        raise LocalBrokerError(
            f"No Docker engine answers ({error}). Start Docker, or leave out `--with docker`: a local broker needs none."
        ) from error


def _typed(container: _Container) -> _Container:
    # testcontainers' modules have no types of their own.
    return container
