"""Who means to stay uses no namespace that is named like the sandbox of a replay: all of it goes with the sandbox.

The name alone decides, so that nobody has to look at the cluster for it, and nothing can come in between.
"""

from __future__ import annotations

from collections.abc import Collection

from headrace.core.topics import IN_SANDBOX_NAMES, Topic, Topics
from headrace.errors import NamespaceIsSandbox
from headrace.ports import Log


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
