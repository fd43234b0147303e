"""The tools gateway of headrace: what agents call, over HTTP and the Model Context Protocol."""

from __future__ import annotations

from headrace_gateway.access import LOCAL, Principal, Scope
from headrace_gateway.application import create_app
from headrace_gateway.gateway import Gateway
from headrace_gateway.operations import Operations
from headrace_gateway.server import GatewayServer, run_gateway
from headrace_gateway.stdio import run_stdio
from headrace_gateway.tools import (
    Caller,
    TaskSupport,
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
    "TaskSupport",
    "ToolAnnotations",
    "ToolDefinition",
    "ToolRefused",
    "ToolRegistry",
    "built_in_tools",
    "create_app",
    "run_gateway",
    "run_stdio",
]
