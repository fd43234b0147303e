"""The memory of conversations: what was said, and the summaries that take the place of what is old."""

from __future__ import annotations

from headrace.memory.bound import BoundMemory
from headrace.memory.facade import Memory
from headrace.memory.importing import ParsedConversation, load_conversation, parse_conversation
from headrace.memory.store import StoreOptions, TopicMemoryStore

__all__ = [
    "BoundMemory",
    "Memory",
    "ParsedConversation",
    "StoreOptions",
    "TopicMemoryStore",
    "load_conversation",
    "parse_conversation",
]
