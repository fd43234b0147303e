"""Who means to stay uses no namespace that is named like the sandbox of a replay: all of it goes with the sandbox. And who only
looks at one makes nothing there: it would have no marker, and nobody would remove it.

The name alone decides, so that nobody has to look at the cluster for it, and nothing can come in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

from headrace.core.topics import IN_SANDBOX_NAMES, Topic, Topics
from headrace.errors import NamespaceIsSandbox, TopicMissing
from headrace.ports import Log
from headrace.replay_errors import SandboxUnknown

_LOOKS: Final = 3
_LOOK_SECONDS: Final = 0.5
"""One broker knows of a topic a moment later than another."""


def is_named_like_sandbox(namespace: str) -> bool:
    """Whether only the sandboxes of replays have such a name."""
    return IN_SANDBOX_NAMES in namespace


def refuse_sandbox(topics: Topics) -> None:
    """Raises NamespaceIsSandbox where the namespace has a name that only sandboxes of replays have."""
    live, infix, _ = topics.namespace.partition(IN_SANDBOX_NAMES)
    if infix:
        raise NamespaceIsSandbox(
            f"The namespace {topics.namespace} is named like the sandbox of a replay of jobs of {live}: all that is in one is"
            " deleted with it. Give another namespace, by HEADRACE_NAMESPACE or --namespace."
        )


async def create_live_topics(log: Log, topics: Topics, wanted: Collection[Topic]) -> None:
    """Creates topics as `Log.create_topics` does, in a namespace that is no sandbox.

    Raises:
        NamespaceIsSandbox: it is named like one; nothing was changed.
        TopicMisconfigured: a topic exists with settings under which data could be lost.
        BrokerError: the brokers cannot be used.
    """
    refuse_sandbox(topics)
    await log.create_topics(wanted)


async def provide_topics(log: Log, topics: Topics, wanted: Collection[Topic]) -> None:
    """Creates topics as `Log.create_topics` does, for who only looks at the namespace; those of a sandbox must be there.

    Raises:
        SandboxUnknown: the namespace is named like a sandbox, and there is none of that name; nothing was changed.
        TopicMissing: the sandbox has no such topic, or none any more; nothing was changed.
        TopicMisconfigured: a topic exists with settings under which data could be lost.
        BrokerError: the brokers cannot be used.
    """
    if not is_named_like_sandbox(topics.namespace):
        await log.create_topics(wanted)
        return
    marker, missing = topics.replay_marker.name, [""]
    for look in range(_LOOKS):
        if look:
            await asyncio.sleep(_LOOK_SECONDS)
        there = await log.topic_names()
        missing = [name for name in (marker, *(each.name for each in wanted)) if name not in there]
        if not missing:
            return
    raise _unknown(topics.namespace) if marker in missing else _not_whole(topics.namespace, missing[0])


def _unknown(namespace: str) -> SandboxUnknown:
    live, _, sandbox = namespace.partition(IN_SANDBOX_NAMES)
    return SandboxUnknown(
        f"There is no sandbox of the name {namespace}: no replay has made it, or it was removed. Nothing was made. Is the name"
        f" right? `headrace replay stream ... --namespace {live} --into {sandbox} --keep` makes one that can be looked at."
    )


def _not_whole(namespace: str, missing: str) -> TopicMissing:
    return TopicMissing(
        f"The sandbox {namespace} has no topic {missing}: its replay is just beginning, or it is being removed. Nothing was made."
        " Try again in a moment."
    )
