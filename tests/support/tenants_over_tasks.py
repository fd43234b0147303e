"""What tenants do with the tasks of the Model Context Protocol, by requests as they are written.

A task shows neither arguments nor context. So where an answer is about a task of somebody's, their secret stands for its id.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from support.events import PATIENCE
from support.mcp_raw import modern_request
from support.tenants import Actor, Tenants


async def look(world: Tenants, actor: Actor, owner: Actor) -> str:
    """Looks at the owner's task that has failed, and answers it something."""
    task = {"taskId": owner.failed}
    updated = await _ask(world, actor, "tasks/update", task | {"inputResponses": {}})
    assert ("error" in updated) is (owner is not actor)
    return _told(owner.failed, owner, await _ask(world, actor, "tasks/get", task), updated)


async def cancel(world: Tenants, actor: Actor, owner: Actor) -> str:
    """Has the owner's task cancelled that waits. It is answered with nothing, and looked at after."""
    task = {"taskId": owner.waiting}
    cancelled = await _ask(world, actor, "tasks/cancel", task)
    assert ("error" in cancelled) is (owner is not actor)
    return _told(owner.waiting, owner, cancelled, await _ask(world, actor, "tasks/get", task))


async def watch(world: Tenants, actor: Actor, owner: Actor) -> str:
    """What a stream tells that listens to the owner's task that changes, and to one of the actor's own."""
    headers, body = modern_request(
        "subscriptions/listen", {"notifications": {"taskIds": [owner.changing, actor.changing]}}, tasks=True
    )
    told: list[Any] = []
    async with (
        asyncio.timeout(PATIENCE),
        world.http[actor.token].stream("POST", "/mcp", headers=headers, json=body) as response,
    ):
        assert response.status_code == 200, await response.aread()
        lines = response.aiter_lines()

        async def next_of(task_id: str) -> None:
            while True:
                line = await anext(lines)
                if line.startswith("data: "):
                    told.append(json.loads(line.removeprefix("data: ")))
                    if task_id in line and "notifications/tasks" in line:
                        return

        await next_of(actor.changing)
        for each in {owner.token: owner, actor.token: actor}.values():
            world.change(each)
        await next_of(actor.changing)
    return _told(owner.changing, owner, *told)


async def _ask(world: Tenants, actor: Actor, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
    headers, body = modern_request(method, parameters, tasks=True)
    response = await world.http[actor.token].post("/mcp", headers=headers, json=body)
    assert response.status_code in {200, 400, 404}, response.text
    text = response.text
    if response.headers["content-type"].startswith("text/event-stream"):
        [text] = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    found: dict[str, Any] = json.loads(text)
    return found


def _told(task_id: str, owner: Actor, *answers: dict[str, Any]) -> str:
    return json.dumps(answers).replace(task_id, owner.secret)
