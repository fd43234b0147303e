"""Tools in the forms in which the providers of models take them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, assert_never

from headrace import WorkerDefinition
from headrace_gateway.tools.definition import ToolDefinition
from headrace_gateway.tools.strict import strict_schema


class ToolFormat(StrEnum):
    """Who reads a definition."""

    MCP = "mcp"
    """The Model Context Protocol's `Tool`."""
    OPENAI = "openai"
    """OpenAI's Chat Completions, and whatever is compatible with it."""
    OPENAI_RESPONSES = "openai-responses"
    """OpenAI's Responses."""
    ANTHROPIC = "anthropic"
    """Anthropic's Messages."""


def formatted(
    tool: ToolDefinition[Any], workers: Mapping[str, WorkerDefinition], form: ToolFormat, *, strict: bool = False
) -> dict[str, Any]:
    """A tool in one of the forms.

    Args:
        workers: those that there are now.
        strict: for OpenAI and Anthropic, so that a model's arguments are sure to fit: closed objects in which everything is
            required, and what may be left out may be null. What cannot be said so is left out; see `strict_schema`.

    Raises:
        NotStrict: the arguments cannot be described strictly at all.
    """
    if form is ToolFormat.MCP:
        return tool.to_wire(workers)
    shown = tool.shown_schema(workers)
    arguments = strict_schema(shown) if strict else shown
    match form:
        case ToolFormat.OPENAI:
            function = {"name": tool.name, "description": tool.description, "parameters": arguments, "strict": strict}
            return {"type": "function", "function": function}
        case ToolFormat.OPENAI_RESPONSES:
            return {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": arguments,
                "strict": strict,
            }
        case ToolFormat.ANTHROPIC:
            described = {"name": tool.name, "description": tool.description, "input_schema": arguments}
            return {**described, "strict": True} if strict else described
        case _:
            assert_never(form)
