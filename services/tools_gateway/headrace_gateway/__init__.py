"""The tools gateway of headrace: what agents call, over HTTP."""

from __future__ import annotations

from headrace_gateway.access import LOCAL, Principal, Scope
from headrace_gateway.gateway import Gateway
from headrace_gateway.http.app import create_app
from headrace_gateway.operations import Operations
from headrace_gateway.server import GatewayServer, run_gateway
from headrace_gateway.tools import (
    Caller,
    ToolAnnotations,
    ToolDefinition,
    ToolRefused,
    ToolRegistry,
    built_in_tools,
)

__all__ = [
    "LOCAL",
    "Caller",
    "Gateway",
    "GatewayServer",
    "Operations",
    "Principal",
    "Scope",
    "ToolAnnotations",
    "ToolDefinition",
    "ToolRefused",
    "ToolRegistry",
    "built_in_tools",
    "create_app",
    "run_gateway",
]
