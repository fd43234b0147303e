"""The topics of a namespace: their names, and the settings without which a promise of headrace would not hold."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

JOB_STATE_PARTITIONS = 16
MEMORY_PARTITIONS = 8
DEAD_LETTER_PARTITIONS = 4
AUDIT_PARTITIONS = 4
TOOL_CALL_PARTITIONS = 8
RECORDING_PARTITIONS = 8

REPLAY_MARKER_SUFFIX = ".replay.marker"
IN_SANDBOX_NAMES = ".replay-"
"""Stands between a namespace and the id of one of the sandboxes in which its jobs run again."""
"""Has a point inside, so that no queue ends in it: the name of a worker has none."""

_HOUR = 3_600_000
_DAY = 24 * _HOUR

_GUARDED = frozenset({"cleanup.policy", "retention.ms", "retention.bytes"})

WORKER_NAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9_-]{0,99}"
WORKER_NAME = re.compile(WORKER_NAME_PATTERN)


@dataclass(frozen=True, kw_only=True)
class Topic:
    """A topic as headrace needs it.

    Attributes:
        partitions: given once; keys and ids would move if it changed.
        configuration: topic settings, as Kafka spells them, all values text.
        guarded: names of settings that must be as given also in a topic that exists already, else data would be lost.
        at_least: those of `guarded` that may be larger, too.
    """

    name: str
    partitions: int
    configuration: Mapping[str, str] = field(default_factory=dict)
    guarded: frozenset[str] = _GUARDED
    at_least: frozenset[str] = frozenset()

    def allows(self, name: str, value: str | None) -> bool:
        """Whether a guarded setting may have this value, which a broker tells. Lists have no order."""
        wanted = self.configuration[name]
        if name in self.at_least and value is not None:
            return value == "-1" or (wanted != "-1" and int(value) >= int(wanted))
        return _as_set(value) == _as_set(wanted)


def _as_set(value: str | None) -> frozenset[str]:
    return frozenset(part.strip() for part in (value or "").split(","))


_COMPACT = {
    "cleanup.policy": "compact",
    # Compaction never touches the active segment: roll it often, and start on a small part of dirty records.
    "segment.ms": str(_HOUR // 3),
    "segment.bytes": str(64 * 1024 * 1024),
    "min.cleanable.dirty.ratio": "0.1",
    "max.compaction.lag.ms": str(_DAY),
    "delete.retention.ms": str(_DAY),
    "retention.ms": "-1",
    "retention.bytes": "-1",
}
_KEEP = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}

# A snapshot holds arguments, context, result and traceback: all of them at their limits, and room for the rest.
_LARGEST_RECORD = {"max.message.bytes": str(2 * 1024 * 1024)}


@dataclass(frozen=True)
class Topics:
    """The names and settings of all topics of one namespace."""

    namespace: str

    def jobs(self, worker: str, partitions: int = 8) -> Topic:
        """The queue of one worker. Kafka never deletes from it by age or size."""
        return Topic(name=self.jobs_name(worker), partitions=partitions, configuration={**_KEEP, **_LARGEST_RECORD})

    def jobs_name(self, worker: str) -> str:
        return f"{self.namespace}.jobs.{worker}"

    def worker_of(self, topic_name: str) -> str | None:
        """The worker whose queue the topic is, or None for every other topic, as one of a namespace `<this one>.jobs`."""
        prefix = f"{self.namespace}.jobs."
        rest = topic_name.removeprefix(prefix)
        return rest if topic_name.startswith(prefix) and WORKER_NAME.fullmatch(rest) else None

    @property
    def job_state(self) -> Topic:
        """The newest snapshot of every job, and the claims of job partitions."""
        return Topic(
            name=f"{self.namespace}.job-state",
            partitions=JOB_STATE_PARTITIONS,
            configuration={
                **_COMPACT,
                **_LARGEST_RECORD,
                "min.compaction.lag.ms": str(_HOUR),
                "message.timestamp.type": "LogAppendTime",
            },
            guarded=_GUARDED | {"message.timestamp.type", "min.compaction.lag.ms"},
        )

    @property
    def workers(self) -> Topic:
        """Each worker's definition, and each live engine."""
        return Topic(name=f"{self.namespace}.workers", partitions=1, configuration=dict(_COMPACT))

    @property
    def control(self) -> Topic:
        """What is asked of engines: to cancel jobs, and to pause workers. Small: every engine reads all of it."""
        return Topic(name=f"{self.namespace}.control", partitions=1, configuration=dict(_COMPACT))

    def of_engine(self, workers: Iterable[str], partitions: int, window_seconds: float) -> list[Topic]:
        """All that an engine with these workers needs, the queues with so many partitions; see `ended_keys` for the window."""
        shared = (self.workers, self.control, self.job_state, self.dead_letters, self.memory, self.ended_keys(window_seconds))
        return [*shared, *(self.jobs(worker, partitions) for worker in workers)]

    @property
    def memory(self) -> Topic:
        """The entries and compactions of conversations; one partition for each conversation."""
        return Topic(
            name=f"{self.namespace}.memory",
            partitions=MEMORY_PARTITIONS,
            configuration={
                **_COMPACT,
                **_LARGEST_RECORD,
                # By the clock of `job-state`, so that a replay knows what stood there when a job began. Not guarded: a topic that
                # was made without it loses nothing.
                "message.timestamp.type": "LogAppendTime",
            },
        )

    @property
    def recordings(self) -> Topic:
        """What jobs got from outside, for their replays, for a week, or longer; one partition for each job."""
        return Topic(
            name=f"{self.namespace}.recordings",
            partitions=RECORDING_PARTITIONS,
            configuration={
                "cleanup.policy": "delete",
                "retention.ms": str(7 * _DAY),
                "retention.bytes": "-1",
                # By one clock, so that reading can begin where a job began.
                "message.timestamp.type": "LogAppendTime",
                **_LARGEST_RECORD,
            },
            # An answer that no broker takes is noticed by the job that has paid for it.
            guarded=_GUARDED | {"message.timestamp.type", "max.message.bytes"},
            at_least=frozenset({"retention.ms", "max.message.bytes"}),
        )

    @property
    def dead_letters(self) -> Topic:
        """The original bytes of what could not be done, for 30 days."""
        return Topic(
            name=f"{self.namespace}.dead-letters",
            partitions=DEAD_LETTER_PARTITIONS,
            configuration={
                "cleanup.policy": "delete",
                "retention.ms": str(30 * _DAY),
                "retention.bytes": "-1",
                **_LARGEST_RECORD,
            },
        )

    @property
    def api_keys(self) -> Topic:
        """The API keys, hashed. Whoever can write here can let anybody in. Small: every gateway reads all of it."""
        return Topic(name=f"{self.namespace}.api-keys", partitions=1, configuration=dict(_COMPACT))

    def audit(self, retention_seconds: float) -> Topic:
        """Who called, and what was decided; kept for so long, or longer."""
        return Topic(
            name=f"{self.namespace}.audit",
            partitions=AUDIT_PARTITIONS,
            configuration={
                "cleanup.policy": "delete",
                "retention.ms": str(math.ceil(retention_seconds * 1000)),
                "retention.bytes": "-1",
            },
            at_least=frozenset({"retention.ms"}),
        )

    def tool_calls(self, tenant: str | None = None) -> Topic:
        """Tool calls that come as records, for a week.

        Args:
            tenant: whose calls alone stand in it, whoever they are from; else each call says by its credential whose it is.
        """
        return self._calls("tool-calls", tenant)

    def tool_results(self, tenant: str | None = None) -> Topic:
        """The answers to these calls, each in the partition of the same number."""
        return self._calls("tool-results", tenant)

    def tool_call_group(self, tenant: str | None = None) -> str:
        """The consumer group of the gateways that answer these calls."""
        return self.tool_calls(tenant).name

    def _calls(self, name: str, tenant: str | None) -> Topic:
        return Topic(
            name=f"{self.namespace}.{name}" if tenant is None else f"{self.namespace}.{name}.{tenant}",
            partitions=TOOL_CALL_PARTITIONS,
            configuration={
                "cleanup.policy": "delete",
                "retention.ms": str(7 * _DAY),
                "retention.bytes": "-1",
                # When a call came tells which answers have to be known: that is not for its writer to say.
                "message.timestamp.type": "LogAppendTime",
                **_LARGEST_RECORD,
            },
        )

    def ended_keys(self, window_seconds: float) -> Topic:
        """The ids of jobs that ended and whose id was not fresh, for twice the window in which such a job is done once."""
        window = math.ceil(window_seconds * 1000)
        return Topic(
            name=f"{self.namespace}.ended-keys",
            partitions=JOB_STATE_PARTITIONS,
            configuration={
                "cleanup.policy": "delete",
                "retention.ms": str(2 * window),
                "retention.bytes": "-1",
                # What is over can go only when its segment is full or old, and all that is kept is read at a take-over.
                "segment.ms": str(min(max(window, _HOUR // 60), _HOUR)),
                "segment.bytes": str(16 * 1024 * 1024),
            },
            at_least=frozenset({"retention.ms"}),
        )

    @property
    def replay_marker(self) -> Topic:
        """Says that the namespace is the sandbox of a replay, and names all of it. Who cleans up goes by this alone."""
        return Topic(
            name=f"{self.namespace}{REPLAY_MARKER_SUFFIX}",
            partitions=1,
            configuration={**_KEEP, "message.timestamp.type": "LogAppendTime"},
        )

    @property
    def janitors(self) -> str:
        """The consumer group of the engines' janitors. No worker's group has such a name: theirs have no point in them."""
        return f"{self.namespace}.job-state.janitor"

    def group(self, worker: str) -> str:
        """The consumer group of a worker's engines."""
        return f"{self.namespace}.{worker}"
