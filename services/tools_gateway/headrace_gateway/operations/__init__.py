"""What can be done through the gateway, whatever the transport: each thing in one place, for one principal."""

from __future__ import annotations

from headrace_gateway.operations.catalogue import OPERATIONS, Effect, Operation, operation
from headrace_gateway.operations.jobs import Jobs
from headrace_gateway.operations.operations import DEFAULT_LIMIT, Left, Operations, Told
from headrace_gateway.operations.unattended import Unattended

__all__ = ["DEFAULT_LIMIT", "OPERATIONS", "Effect", "Jobs", "Left", "Operation", "Operations", "Told", "Unattended", "operation"]
