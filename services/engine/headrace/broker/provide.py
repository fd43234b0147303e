"""A broker for whoever needs one: named by the user, running for this folder, or started here."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from headrace.broker.base import Broker, ForeignBroker, OwnedBroker
from headrace.broker.configuration import LocalBrokerOptions
from headrace.broker.control import NodeControl
from headrace.broker.discovery import BrokerNote, publish, retract, running_broker
from headrace.broker.local import LocalBroker, start_local_broker
from headrace.errors import ConfigurationError, LocalBrokerInUse
from headrace.settings import Settings

# How long another process may take to bring the broker of this folder up.
PEER_START_SECONDS = 30.0
POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerRequest:
    """Which broker is wanted.

    Attributes:
        kind: `local` or `docker`, as the user asked for it; None takes what the settings name, else a local one.
        data_directory: where a local one keeps its data; `broker` in the settings' data directory when None.
        image: what runs in a container.
        published: whether other processes of this folder may find it.
        running_first: take the one that runs for this folder, wherever its data lie, before an ephemeral one is started.
        options: how a local one is to be; of these, a container knows the port alone.
    """

    kind: Literal["local", "docker"] | None = None
    data_directory: Path | None = None
    image: Literal["redpanda", "kafka"] = "redpanda"
    published: bool = True
    running_first: bool = False
    options: LocalBrokerOptions = field(default_factory=LocalBrokerOptions)


def provide_broker(settings: Settings, request: BrokerRequest | None = None) -> Broker:
    """Return a broker to use; its `description` says which it is.

    In this order, unless the request names a kind: the one that the settings name; the one that runs for this folder; a
    local one, started here and ended with `stop`. An ephemeral one is always one's own, unless `running_first` is asked for.
    A container is started on request alone. Of several processes that ask at once in one folder, one starts the broker and
    all use it. Blocks.

    Raises:
        LocalBrokerError: one was to be started, and cannot be.
        ConfigurationError: the request contradicts itself.
    """
    wanted = request or BrokerRequest()
    if wanted.kind is None and settings.bootstrap_servers:
        address = settings.bootstrap_servers
        return ForeignBroker("external", address, f"external: {address}, as the settings name it")
    if wanted.kind == "docker":
        return _published(settings, wanted, _start_container(wanted))
    if wanted.running_first and (note := running_broker(settings)) is not None:
        return _running(note)
    if wanted.options.ephemeral:
        return _published(settings, wanted, _start_ephemeral(settings, wanted))
    return _shared(settings, wanted)


def _shared(settings: Settings, wanted: BrokerRequest) -> Broker:
    """The broker of this folder's data: the one that runs, or a new one."""
    directory = (wanted.data_directory or settings.data_directory / "broker").expanduser().absolute()
    deadline = time.monotonic() + PEER_START_SECONDS
    while True:
        note = running_broker(settings)
        if note is not None and note.data_directory == str(directory):
            _check_nodes(note, wanted.options.nodes)
            return _running(note)
        try:
            started = start_local_broker(directory, wanted.options, cache_directory=settings.cache_directory)
        except LocalBrokerInUse:
            # Another process has just begun to start it, and will say where; or it keeps it to itself.
            if time.monotonic() >= deadline:
                raise
            time.sleep(POLL_SECONDS)
            continue
        return _published(settings, wanted, started, directory)


def _check_nodes(note: BrokerNote, wanted: int | None) -> None:
    count = len(note.bootstrap_servers.split(","))
    if wanted is not None and wanted != count:
        raise ConfigurationError(
            f"The broker that runs for this folder has {count} node(s), and {wanted} were asked for. "
            "Leave out --nodes to use it, or choose another --data-directory."
        )


def _running(note: BrokerNote) -> ForeignBroker:
    description = f"running: {note.kind} at {note.bootstrap_servers}, started for this folder by process {note.pid}"
    return ForeignBroker("running", note.bootstrap_servers, description)


def _start_ephemeral(settings: Settings, wanted: BrokerRequest) -> OwnedBroker:
    if wanted.data_directory is not None:
        raise ConfigurationError("--ephemeral keeps no data: leave out --data-directory.")
    return start_local_broker(None, wanted.options, cache_directory=settings.cache_directory)


def _start_container(wanted: BrokerRequest) -> OwnedBroker:
    if wanted.data_directory is not None:
        raise ConfigurationError("A broker in a container keeps no data: leave out --data-directory.")
    if replace(wanted.options, port=0, ephemeral=False) != LocalBrokerOptions():
        raise ConfigurationError("Of the options, a broker in a container knows the port alone.")
    from headrace.broker.container import start_container_broker

    return start_container_broker(wanted.image, port=wanted.options.port)


def _published(settings: Settings, wanted: BrokerRequest, broker: OwnedBroker, data_directory: Path | None = None) -> OwnedBroker:
    with contextlib.ExitStack() as undo:
        undo.callback(broker.stop)
        # A broker that runs for this folder stays the one that others find. The note of a process that was killed seems to name
        # one, too, when this one has its data and its address: it is this one.
        other = running_broker(settings)
        if wanted.published and (other is None or other.cluster_id == broker.cluster_id):
            control = NodeControl(broker.cluster) if isinstance(broker, LocalBroker) else None
            if control is not None:
                broker.before_stop(control.close)
            note = BrokerNote(
                kind=broker.kind,
                bootstrap_servers=broker.bootstrap_servers,
                cluster_id=broker.cluster_id,
                pid=os.getpid(),
                data_directory=str(data_directory) if data_directory else None,
                control=control.address if control else None,
                control_token=control.token if control else None,
            )
            publish(settings, note)
            broker.published = True
            broker.before_stop(lambda: retract(settings, note))
        undo.pop_all()
    return broker
