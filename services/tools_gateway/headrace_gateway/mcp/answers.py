"""Answers of tools as results of the protocol."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mcp_types import CallToolResult, TextContent

from headrace import ToolRefusal, ToolSuccess


def tool_result(answer: ToolSuccess | ToolRefusal) -> CallToolResult:
    """The result of a tool call: `data` as structured content, and the same JSON as text; of a refusal, code and message."""
    if isinstance(answer, ToolRefusal):
        return CallToolResult(content=[as_text(answer.error.to_wire())], is_error=True)
    return CallToolResult(content=[as_text(answer.data)], structured_content=answer.data)


def as_text(data: Mapping[str, Any]) -> TextContent:
    """A JSON object as a block of text."""
    return TextContent(text=to_json(data))


def to_json(data: Mapping[str, Any]) -> str:
    """A JSON object as text. Numbers of any size pass, as they do in structured content."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
