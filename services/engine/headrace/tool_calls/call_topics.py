"""Where tool calls come from, and where their answers go."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.core.topics import Topic, Topics


@dataclass(frozen=True, slots=True)
class CallTopics:
    """Where calls come from, and where their answers go.

    Attributes:
        calls, results: have as many partitions as each other: the answer to a call goes into the partition of the same number.
        dead_letters: for what is no call.
    """

    calls: Topic
    results: Topic
    dead_letters: Topic
    group: str

    @classmethod
    def of(cls, topics: Topics, tenant: str | None = None) -> CallTopics:
        """Those of a namespace, or of one tenant in it."""
        return cls(topics.tool_calls(tenant), topics.tool_results(tenant), topics.dead_letters, topics.tool_call_group(tenant))
