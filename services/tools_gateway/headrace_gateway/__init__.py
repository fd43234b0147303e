"""The tools gateway of headrace: what agents call, over HTTP."""

from __future__ import annotations

from headrace_gateway.http.app import create_app
from headrace_gateway.server import GatewayServer, run_gateway
from headrace_gateway.tools import (
    Caller,
    ToolAnnotations,
    ToolDefinition,
    ToolRefused,
    ToolRegistry,
    ToolServices,
    built_in_tools,
)

__all__ = [
    "Caller",
    "GatewayServer",
    "ToolAnnotations",
    "ToolDefinition",
    "ToolRefused",
    "ToolRegistry",
    "ToolServices",
    "built_in_tools",
    "create_app",
    "run_gateway",
]
