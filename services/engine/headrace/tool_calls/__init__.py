"""Tool calls that come as records of a topic, and their answers."""

from __future__ import annotations

from headrace.tool_calls.consumer import CallTopics, ReceivedCall, ToolCallConsumer

__all__ = ["CallTopics", "ReceivedCall", "ToolCallConsumer"]
