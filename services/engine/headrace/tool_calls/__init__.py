"""Tool calls that come as records of a topic, and their answers."""

from __future__ import annotations

from headrace.tool_calls.call_topics import CallTopics
from headrace.tool_calls.calls import CallOwner, OwnedCall, ReceivedCall
from headrace.tool_calls.consumer import ToolCallConsumer

__all__ = ["CallOwner", "CallTopics", "OwnedCall", "ReceivedCall", "ToolCallConsumer"]
