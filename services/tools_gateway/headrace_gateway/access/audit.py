"""Puts what became of calls into the topic `audit`."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Final

from headrace import AuditEntry, AuditTrail
from headrace_gateway.access.admission import Audited

NO_ADDRESS: Final = "unreadable"
"""In place of an address that is none: calls from this machine are believed what their header says of it."""


class TrailAudit:
    """The audit in the log."""

    def __init__(self, trail: AuditTrail) -> None:
        self._trail = trail

    async def start(self) -> None:
        """Connects. Raises: BrokerError."""
        await self._trail.start()

    async def stop(self) -> None:
        """Writes what waits, and ends the connection."""
        await self._trail.stop()

    def write(self, audited: Audited) -> None:
        """Takes it, without waiting and without raising anything."""
        principal, arrival = audited.principal, audited.arrival
        self._trail.write(
            AuditEntry(
                at=audited.at,
                transport=arrival.transport,
                address=None if arrival.address is None else _address(arrival.address),
                tenant=None if principal is None else principal.tenant,
                subject=None if principal is None else principal.subject,
                credential=None if principal is None else principal.credential,
                tool=audited.tool,
                action=audited.action,
                outcome=audited.outcome,
                job_id=audited.job_id,
                left_out=audited.left_out,
            )
        )


@lru_cache(maxsize=4_096)
def _address(given: str) -> str:
    try:
        return str(ipaddress.ip_address(given))
    except ValueError:
        return NO_ADDRESS
