"""An engine's end of the line to its supervisor."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from headrace.core.topics import Topics
from headrace.engine.partition import OwnedPartition
from headrace.kafka.leaving import client_id_of
from headrace.settings import Settings
from headrace.supervisor.told import Claim

_logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
# The kernel ends the process by itself a little after the supervisor should have: 1 s after a usual term of 25 s.
_SECOND_LINE = 0.04


class Channel:
    """Writes to a pipe without ever waiting. What cannot be written now is written later, the newest of each kind.

    Args:
        descriptor: the pipe's writing end.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor
        self._left = b""
        self._newest: dict[str, Any] = {}

    def tell(self, **fields: Any) -> None:
        """Each field takes the place of what was told under its name."""
        self._newest |= fields
        self.flush()

    def flush(self) -> None:
        """Writes what the pipe has room for."""
        while self._left or self._newest:
            if not self._left:
                self._left, self._newest = json.dumps(self._newest).encode() + b"\n", {}
            try:
                written = os.write(self._descriptor, self._left)
            except BlockingIOError:
                return
            except OSError:  # the supervisor is gone, which the other pipe tells
                self._left, self._newest = b"", {}
                return
            self._left = self._left[written:]


class Supervised:
    """The `Guardian` of an engine that runs under a supervisor.

    Beside the supervisor, which may be stopped itself, the kernel watches: a timer that every renewal pushes on ends the process,
    whoever holds the interpreter, unless a worker takes the signal SIGALRM for itself.

    Args:
        report_to: a pipe to the supervisor.
        life: a pipe that ends with the supervisor.
    """

    def __init__(self, report_to: int, life: int) -> None:
        self._channel = Channel(report_to)
        os.set_inheritable(life, False)
        self._life = life
        self._claims: dict[tuple[str, int], Claim] = {}
        self._deadlines: dict[OwnedPartition, float] = {}
        self._groups: dict[str, Callable[[], str]] = {}
        self._members: dict[str, str] = {}
        self._until: float | None = None
        self._watching: asyncio.Task[None] | None = None

    def introduce(self, settings: Settings, instance_id: str, orphaned: Callable[[], None]) -> None:
        """See `Guardian.introduce`; to be called in the event loop."""
        engine = {
            "bootstrap_servers": settings.bootstrap_servers,
            "topic": Topics(settings.namespace).job_state.name,
            "instance_id": instance_id,
            "client_id": client_id_of(instance_id),
        }
        self._channel.tell(engine=engine, grace=settings.engine.grace_seconds)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._life, self._life_ended, orphaned)
        self._watching = loop.create_task(self._watch())

    def started(self) -> None:
        """See `Guardian.started`."""
        self._channel.tell(ready=True)

    def ended(self) -> None:
        """See `Guardian.ended`."""
        asyncio.get_running_loop().remove_reader(self._life)
        if self._watching is not None:
            self._watching.cancel()
        self._look_at_members()
        self._channel.tell(farewell=True)

    # --- what the engine tells ------------------------------------------------------------------------------------------

    def holds(self, partition: OwnedPartition) -> None:
        """See `Guardian.holds`."""
        key = partition.recovery.worker, partition.source.partition
        claim = Claim(*key, partition.state_partition, partition.writer.epoch, partition.lease_name)
        if self._claims.get(key) != claim:
            self._claims[key] = claim
            self._tell_claims()
        now = partition.clock()
        self._deadlines[partition] = now.steady + partition.lease.remaining(now)
        self._tell_deadline(partition)

    def vacated(self, partition: OwnedPartition) -> None:
        """See `Guardian.vacated`."""
        if self._deadlines.pop(partition, None) is not None:
            self._tell_deadline(partition)

    def released(self, partition: OwnedPartition) -> None:
        """See `Guardian.released`."""
        key = partition.recovery.worker, partition.source.partition
        claim = self._claims.get(key)
        if claim is not None and claim.epoch == partition.writer.epoch:
            del self._claims[key]
            self._tell_claims()
        self.vacated(partition)

    def belongs(self, group: str, member_id: Callable[[], str]) -> None:
        """See `Guardian.belongs`."""
        self._groups[group] = member_id
        self._look_at_members()

    def left(self, group: str) -> None:
        """See `Guardian.left`."""
        self._groups.pop(group, None)
        self._look_at_members()

    def _tell_claims(self) -> None:
        self._channel.tell(claims=list(self._claims.values()))

    def _tell_deadline(self, partition: OwnedPartition) -> None:
        until = min(self._deadlines.values(), default=None)
        if until == self._until:
            return
        self._until = until
        self._channel.tell(until=until)
        if until is None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        else:
            margin = partition.lease.timing.term * _SECOND_LINE
            signal.setitimer(signal.ITIMER_REAL, max(until - partition.clock().steady + margin, 0.001))

    def _look_at_members(self) -> None:
        members = {group: member_id() for group, member_id in self._groups.items()}
        if members != self._members:
            self._members = members
            self._channel.tell(members=members)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self._look_at_members()
            self._channel.flush()

    def _life_ended(self, orphaned: Callable[[], None]) -> None:
        with suppress(BlockingIOError):
            if os.read(self._life, 1):
                return
        asyncio.get_running_loop().remove_reader(self._life)
        _logger.warning("the supervisor is gone: this engine ends in order, since nobody holds it to its leases any more")
        orphaned()
