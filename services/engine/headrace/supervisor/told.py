"""What an engine tells its supervisor, line by line, and what the supervisor makes of it.

Each line is a JSON object; each of its fields takes the place of what was told under that name before. So a line that is left
out is made good by the next one of its kind.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

LONGEST_LINE_BYTES = 16 * 1024 * 1024


class Claim(NamedTuple):
    """A job partition that an engine holds.

    Attributes:
        state_partition: of `job-state`, where the release is to be written.
        epoch: offset of the claim.
        lease: name of the lease, of which the release is to speak.
    """

    worker: str
    partition: int
    state_partition: int
    epoch: int
    lease: str


@dataclass(slots=True)
class Told:
    """The newest that an engine has told.

    Attributes:
        engine: where the engine writes, as `last_rites` needs it; empty until it says so.
        claims: what it holds and has not released.
        members: its member id in each of its groups; empty in one that it is joining.
        until: when nothing of it may run any more, by `boot_time`; None while nothing of it runs under a lease.
        grace: seconds that its jobs get at the end.
        ready: whether it has started.
        farewell: whether it ends in order, by its own will.
    """

    engine: dict[str, Any] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    members: dict[str, str] = field(default_factory=dict)
    until: float | None = None
    grace: float = 30.0
    ready: bool = False
    farewell: bool = False
    _rest: bytes = b""

    def take(self, data: bytes) -> None:
        """Takes in what came through the pipe. A line that is damaged is passed over."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE_BYTES:
            self._rest = b""
        for line in lines:
            try:
                self._take_fields(json.loads(line))
            except (ValueError, TypeError, AttributeError):
                continue

    def _take_fields(self, fields: dict[str, Any]) -> None:
        if "claims" in fields:
            self.claims = [Claim(*claim) for claim in fields["claims"]]
        if "until" in fields:
            self.until = None if fields["until"] is None else float(fields["until"])
        self.members = dict(fields.get("members", self.members))
        self.engine = dict(fields.get("engine", self.engine))
        self.grace = float(fields.get("grace", self.grace))
        self.ready = bool(fields.get("ready", self.ready))
        self.farewell = bool(fields.get("farewell", self.farewell))


def boot_time() -> float:
    """Seconds since the start of the machine, those in which it was suspended too, where the system tells."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
