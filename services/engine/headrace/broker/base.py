"""What every broker offers that headrace can provide, wherever it comes from."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

BrokerKind = Literal["external", "running", "local", "docker"]


class Broker(ABC):
    """A broker to use. As a context manager it is stopped at the end; stopping one that is not ours does nothing.

    Attributes:
        kind: `external` (an address that the user named), `running` (another process of this folder runs it), `local`
            (Apache Kafka, started here) or `docker` (a container, started here).
    """

    kind: BrokerKind

    @property
    @abstractmethod
    def bootstrap_servers(self) -> str:
        """Its addresses, as host:port with commas between; for clients without security settings if it is ours."""

    @property
    @abstractmethod
    def description(self) -> str:
        """Which broker this is, where and why, in one line for people."""

    @abstractmethod
    def stop(self) -> None:
        """End it, if it is ours; blocks until nothing of it is left. A second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


class OwnedBroker(Broker):
    """A broker that this process started and ends.

    Attributes:
        published: whether other commands of this folder find it.
    """

    def __init__(self) -> None:
        self.published = False
        self._before_stop: list[Callable[[], None]] = []
        self._stopped = False

    def before_stop(self, action: Callable[[], None]) -> None:
        """Have something done first when the broker is stopped; the latest addition goes first."""
        self._before_stop.append(action)

    def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        with contextlib.ExitStack() as actions:
            actions.callback(self._end)
            for action in self._before_stop:
                actions.callback(action)

    @property
    @abstractmethod
    def running(self) -> bool:
        """Whether it still runs; one that ended by itself does not."""

    @property
    @abstractmethod
    def cluster_id(self) -> str:
        """The cluster's name in Kafka's metadata."""

    @abstractmethod
    def _end(self) -> None:
        """End it and leave nothing of it."""


class ForeignBroker(Broker):
    """A broker that somebody else runs."""

    def __init__(self, kind: Literal["external", "running"], bootstrap_servers: str, description: str) -> None:
        self.kind = kind
        self._bootstrap_servers = bootstrap_servers
        self._description = description

    @property
    def bootstrap_servers(self) -> str:
        return self._bootstrap_servers

    @property
    def description(self) -> str:
        return self._description

    def stop(self) -> None:
        """Nothing: it is not ours."""
