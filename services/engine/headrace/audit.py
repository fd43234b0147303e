"""The audit: who called, and what was decided, in the topic `audit`.

It holds up nobody and fails no call. What is written waits in memory for the brokers, up to a bound; what comes beyond that, or
what the brokers refuse, is lost, and the log says how much.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from dataclasses import dataclass
from functools import lru_cache, partial
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import orjson

from headrace.core.partitions import key_partition
from headrace.core.timestamps import format_timestamp
from headrace.core.topics import AUDIT_PARTITIONS, Topics
from headrace.errors import HeadraceError
from headrace.kafka.log import KafkaLog
from headrace.models import SCHEMA_VERSION
from headrace.ports import AppendFailed, Log, LogWriter, NewRecord, Outcome, TopicPartition
from headrace.sandbox_refusal import create_live_topics
from headrace.settings import Settings

_logger = logging.getLogger(__name__)

MOST_WAITING: Final = 20_000
"""The most records that wait for the brokers; about 10 MB."""

# Each time up to four batches leave, whose cost is the same whatever is in them. A gateway that is killed loses so much.
_GATHERED_SECONDS = 0.05
_SAID_EVERY_SECONDS = 10.0
_STOP_SECONDS = 2.0


@dataclass(slots=True, kw_only=True)
class AuditEntry:
    """What the audit says of one call; see `AuditRecord` for the fields.

    Attributes:
        at: when it came, in milliseconds since the Unix epoch.
    """

    at: int
    transport: str
    outcome: str
    address: str | None = None
    tenant: str | None = None
    subject: str | None = None
    credential: str | None = None
    tool: str | None = None
    action: str | None = None
    job_id: str | None = None
    left_out: int = 0


class AuditTrail:
    """Writes the audit of one gateway. An async context manager.

    Args:
        log: a cluster that is in use already; it stays open.
        most_waiting: records that are held while the brokers are away.

    Attributes:
        lost: how many records were lost so far.
    """

    def __init__(self, settings: Settings, *, log: Log | None = None, most_waiting: int = MOST_WAITING) -> None:
        self._topics = Topics(settings.namespace)
        self._topic = self._topics.audit(settings.gateway.audit_retention_days * 86_400)
        self._owns_log = log is None
        self._log = log or KafkaLog(settings)
        self._most_waiting = most_waiting
        self._gateway = f"{socket.gethostname()}/{os.getpid()}"
        self._writer: LogWriter | None = None
        self._gathered: list[AuditEntry] = []
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None
        self._mending: asyncio.Task[None] | None = None
        self._said_at = float("-inf")
        self._said = 0
        self.lost = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def start(self) -> None:
        """Connects. The topic is made if it is missing.

        Raises:
            NamespaceIsSandbox: the namespace is the sandbox of a replay; nothing was changed.
            TopicMisconfigured: the topic exists with settings under which records could be lost.
            BrokerError: the brokers cannot be used.
        """
        await create_live_topics(self._log, self._topics, [self._topic])
        self._writer = self._log.writer()
        await self._writer.start()

    async def stop(self) -> None:
        """Writes what waits, as far as that takes no longer than two seconds, and ends the connection."""
        if self._mending is not None:
            self._mending.cancel()
            await asyncio.wait([self._mending])
        self._hand_over()
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.stop(timeout=_STOP_SECONDS)
        if self._owns_log:
            await self._log.close()

    def write(self, entry: AuditEntry) -> None:
        """Takes a record, without waiting and without raising anything. Before the start and after the stop it is lost."""
        # Nobody's calls leave room: else strangers, by calling often enough, could have those of others go unrecorded.
        room = self._most_waiting if entry.tenant is not None else self._most_waiting // 2
        if self._writer is None or len(self._gathered) + self._waiting >= room:
            self._lose(1, "the brokers do not take them fast enough" if self._writer else "the audit has stopped")
            return
        self._gathered.append(entry)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_GATHERED_SECONDS, self._hand_over)

    def _hand_over(self) -> None:
        """Gives what was gathered to the writer: one call for each partition."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        entries, self._gathered = self._gathered, []
        if not entries or self._writer is None:
            return
        by_partition: dict[int, list[NewRecord]] = {}
        for entry in entries:
            key, partition = _place_of(entry.tenant, entry.subject)
            by_partition.setdefault(partition, []).append(NewRecord(key, self._encoded(entry)))
        for number, records in by_partition.items():
            self._waiting += len(records)
            self._writer.submit(TopicPartition(self._topic.name, number), records, partial(self._settled, len(records)))

    def _settled(self, count: int, outcome: Outcome) -> None:
        self._waiting -= count
        if isinstance(outcome, AppendFailed):
            self._lose(count, str(outcome.reason))
            if self._writer is not None and self._writer.failure is not None and self._mending is None:
                self._mending = asyncio.create_task(self._mend(), name="headrace-audit-mend")

    async def _mend(self) -> None:
        """Takes a new writer in the place of one that writes nothing any more."""
        try:
            fresh = self._log.writer()
            await fresh.start()
        except HeadraceError as error:
            _logger.warning("The audit cannot be written: %s", error)
            await asyncio.sleep(_SAID_EVERY_SECONDS)
        else:
            broken, self._writer = self._writer, fresh
            if broken is not None:
                await broken.stop(timeout=0.0)
        finally:
            self._mending = None

    def _lose(self, count: int, reason: str) -> None:
        self.lost += count
        now = asyncio.get_running_loop().time()
        if now - self._said_at >= _SAID_EVERY_SECONDS:
            _logger.warning("%d records of the audit are lost: %s.", self.lost - self._said, reason.rstrip("."))
            self._said_at, self._said = now, self.lost

    def _encoded(self, entry: AuditEntry) -> bytes:
        # Without the model: every call pays for this.
        fields: dict[str, Any] = {
            "schemaVersion": SCHEMA_VERSION,
            "at": format_timestamp(entry.at),
            "gateway": self._gateway,
            "transport": entry.transport,
            "address": entry.address,
            "tenant": entry.tenant,
            "subject": entry.subject,
            "credential": entry.credential,
            "tool": entry.tool,
            "action": entry.action,
            "outcome": entry.outcome,
            "jobId": entry.job_id,
            "leftOut": entry.left_out or None,
        }
        return orjson.dumps({name: value for name, value in fields.items() if value is not None})


@lru_cache(maxsize=4_096)
def _place_of(tenant: str | None, subject: str | None) -> tuple[bytes, int]:
    """The key of a principal's records, and their partition."""
    # Each part is percent-encoded, so that a slash in one cannot make it another's.
    key = "/".join(quote(part or "", safe="") for part in (tenant, subject))
    return key.encode(), key_partition(key, AUDIT_PARTITIONS)
