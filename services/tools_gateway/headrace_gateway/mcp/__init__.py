"""The Model Context Protocol: the gateway's tools, jobs as tasks, and jobs and workers as resources, over HTTP and stdio."""

from __future__ import annotations

from headrace_gateway.mcp.endpoint import MCP_PATH, McpEndpoint
from headrace_gateway.mcp.service import build_server
from headrace_gateway.mcp.stdio import serve_stdio

__all__ = ["MCP_PATH", "McpEndpoint", "build_server", "serve_stdio"]
