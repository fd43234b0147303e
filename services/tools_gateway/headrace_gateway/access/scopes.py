"""What a principal may be allowed to do."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Scope(StrEnum):
    """A right, as API keys and tokens name it."""

    JOBS_READ = "jobs:read"
    """See jobs, and be told of what becomes of them."""
    JOBS_WRITE = "jobs:write"
    """Have work done: schedule it, and do a failed job anew."""
    JOBS_CANCEL = "jobs:cancel"
    """Cancel jobs."""
    JOBS_ACT_AS = "jobs:act-as"
    """Act for every user of the tenant, not for the principal's own alone: what a service needs that many users' agents share."""
    WORKERS_READ = "workers:read"
    """See which workers there are, and how they are doing."""
    MEMORY_READ = "memory:read"
    """Read conversations."""
    MEMORY_WRITE = "memory:write"
    """Add to conversations."""


ALL_SCOPES = frozenset(Scope)


_BY_NAME = {scope.value: scope for scope in Scope}


def known_scopes(names: Iterable[object]) -> frozenset[Scope]:
    """The rights of these names; what is none is passed over: it may be one of a newer version, or of another service."""
    return frozenset(_BY_NAME[name] for name in names if isinstance(name, str) and name in _BY_NAME)
