"""The tools that agents call. They know nothing of how a call arrives."""

from __future__ import annotations

from headrace_gateway.tools.definition import Caller, TaskSupport, ToolAnnotations, ToolDefinition
from headrace_gateway.tools.refusals import ToolRefused
from headrace_gateway.tools.registry import ToolRegistry
from headrace_gateway.tools.scheduler import scheduler_tool
from headrace_gateway.tools.worker_manager import worker_manager_tool

__all__ = [
    "Caller",
    "TaskSupport",
    "ToolAnnotations",
    "ToolDefinition",
    "ToolRefused",
    "ToolRegistry",
    "built_in_tools",
]


def built_in_tools() -> ToolRegistry:
    """A new registry with `scheduler` and `worker_manager`; register tools of your own in it."""
    return ToolRegistry([scheduler_tool(), worker_manager_tool()])
