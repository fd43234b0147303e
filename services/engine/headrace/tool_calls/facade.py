"""Tool calls in records, for programs that answer them."""

from __future__ import annotations

from collections.abc import Callable

from headrace.core.topics import Topics
from headrace.ports import Log
from headrace.sandbox_refusal import refuse_sandbox
from headrace.tool_calls.consumer import CallTopics, Identify, ToolCallConsumer


class AnsweringCalls:
    """The part of a `Client` that answers tool calls."""

    topics: Topics
    _log: Log
    _now: Callable[[], int]

    def tool_calls(
        self,
        identify: Identify,
        *,
        tenant: str | None = None,
        instance_id: str,
        refused: Callable[[str], None] | None = None,
        concurrency: int = 100,
    ) -> ToolCallConsumer:
        """A member of the group that answers tool calls of the topic `tool-calls`; start it, and stop it.

        Args:
            identify: finds out whose a call is, or refuses it; it raises nothing.
            tenant: whose topic of calls is meant; the one for all when left out.
            instance_id: names this process.
            refused: told of each record that is no call, with the refusal's code; it raises nothing.
            concurrency: how many calls may be done at a time.

        Raises:
            NamespaceIsSandbox: the namespace is the sandbox of a replay, in which nobody answers any.
        """
        refuse_sandbox(self.topics)
        return ToolCallConsumer(
            self._log,
            CallTopics.of(self.topics, tenant),
            identify,
            instance_id=instance_id,
            now=self._now,
            refused=refused,
            concurrency=concurrency,
            shared=tenant is None,
        )
