"""Who means to stay uses no namespace that is the sandbox of a replay: all of it goes with the sandbox, whoever has made it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from pydantic import ValidationError

from headrace.core.topics import Topic, Topics
from headrace.errors import NamespaceIsSandbox, TopicMissing
from headrace.ports import Log, Record, TopicPartition
from headrace.reading import record_at
from headrace.sandbox_marker import SandboxMarker

MARKER_KEY: Final = b"marker"


def marker_in(first: Record, topics: Topics) -> SandboxMarker | None:
    """The marker that the first record of a namespace's `replay.marker` is; None where it is none."""
    try:
        marker = SandboxMarker.model_validate_json(first.value or b"")
    except ValidationError:
        return None
    # Whoever copied one elsewhere has made no sandbox by that.
    own = first.offset == 0 and first.key == MARKER_KEY and marker.sandbox == topics.namespace
    return marker if own else None


async def refuse_sandbox(log: Log, topics: Topics) -> None:
    """Looks whether the namespace is one of the live system's.

    Raises:
        NamespaceIsSandbox: a replay has made it its sandbox.
        BrokerError: the brokers cannot be used.
    """
    name = topics.replay_marker.name
    if name not in await log.topic_names():
        return
    try:
        first = await record_at(log, TopicPartition(name, 0), 0)
    except TopicMissing:
        return  # it was just removed
    marker = None if first is None else marker_in(first, topics)
    if marker is not None:
        raise NamespaceIsSandbox(
            f"The namespace {topics.namespace} is the sandbox of a replay of jobs of {marker.namespace}: all that is in it is"
            " deleted with it. Give another namespace, by HEADRACE_NAMESPACE or --namespace. Or have the sandbox removed before,"
            f" by `headrace replay clean --namespace {marker.namespace}`, and with --all also where its replay runs."
        )


async def create_live_topics(log: Log, topics: Topics, wanted: Collection[Topic]) -> None:
    """Creates topics as `Log.create_topics` does, in a namespace that is no sandbox.

    It is looked at before, so that nothing changes in a sandbox; and after, as one may have come meanwhile. A replay does the
    same the other way round: it writes its marker, and then looks for what others have made. So one of the two sees the other.

    Raises:
        NamespaceIsSandbox: a replay has made the namespace its sandbox.
        TopicMisconfigured: a topic exists with settings under which data could be lost.
        BrokerError: the brokers cannot be used.
    """
    await refuse_sandbox(log, topics)
    await log.create_topics(wanted)
    await refuse_sandbox(log, topics)
