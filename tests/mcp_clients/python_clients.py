"""Lists and calls the tools of a gateway with a client that others wrote, and prints what it got as JSON.

It runs in an environment of its own, beside headrace's: python python_clients.py fastmcp|agents|langchain <address>
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

SCHEDULE = {"kind": "steps", "wait": 20}
LOOK = {"action": "list_workers"}


async def fastmcp(address: str) -> dict[str, Any]:
    """FastMCP's client."""
    from fastmcp import Client

    async with Client(address) as client:
        tools = [tool.name for tool in await client.list_tools()]
        scheduled = await client.call_tool("scheduler", SCHEDULE)
        looked = await client.call_tool("worker_manager", LOOK)
        read = await client.read_resource(f"job://{scheduled.structured_content['jobId']}")
        return {
            "tools": tools,
            "scheduled": scheduled.structured_content,
            "looked": looked.structured_content,
            "read": json.loads(read[0].text),
        }


async def agents(address: str) -> dict[str, Any]:
    """The OpenAI Agents SDK: its tools as a model would be given them, and called as a model would call them."""
    from agents import Agent, RunContextWrapper
    from agents.mcp import MCPServerStreamableHttp, MCPUtil
    from agents.tool_context import ToolContext

    async with MCPServerStreamableHttp({"url": address}, name="headrace") as server:
        agent = Agent(name="tester", mcp_servers=[server])
        tools = await MCPUtil.get_all_function_tools([server], False, RunContextWrapper(None), agent)
        by_name = {tool.name: tool for tool in tools}

        async def call(name: str, arguments: dict[str, Any]) -> Any:
            text = json.dumps(arguments)
            context = ToolContext(None, tool_name=name, tool_call_id=name, tool_arguments=text)
            return answer_of(await by_name[name].on_invoke_tool(context, text))

        return {
            "tools": list(by_name),
            "scheduled": await call("scheduler", SCHEDULE),
            "looked": await call("worker_manager", LOOK),
        }


async def langchain(address: str) -> dict[str, Any]:
    """LangChain's adapters, as LangGraph uses them."""
    from langchain_mcp_adapters.client import MultiServerMCPClient

    client = MultiServerMCPClient({"headrace": {"transport": "streamable_http", "url": address}})
    tools = {tool.name: tool for tool in await client.get_tools()}
    return {
        "tools": list(tools),
        "scheduled": answer_of(await tools["scheduler"].ainvoke(SCHEDULE)),
        "looked": answer_of(await tools["worker_manager"].ainvoke(LOOK)),
    }


def answer_of(output: Any) -> Any:
    """The JSON object in what a framework makes of an answer, whose form is its own."""
    if isinstance(output, list):
        output = output[0]
    if isinstance(output, dict) and isinstance(output.get("text"), str):
        output = output["text"]
    return json.loads(output) if isinstance(output, str) else output


async def main(name: str, address: str) -> None:
    print(json.dumps(await {"fastmcp": fastmcp, "agents": agents, "langchain": langchain}[name](address)))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
