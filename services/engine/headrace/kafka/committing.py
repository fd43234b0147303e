"""aiokafka's commits, without errors that nobody looks at.

It shields the request from whoever cancels the commit. One that is cancelled, as by a revocation, so leaves a task
behind that nobody waits for; when its answer is an error, asyncio reports that with a whole traceback.
"""

from __future__ import annotations

import asyncio
from typing import Any


def look_at_commits(coordinator: Any) -> None:
    """Has the outcome of every commit of a group's coordinator looked at, also of those that nobody waits for any more."""
    send = coordinator._do_commit_offsets

    def send_watched(*arguments: Any) -> asyncio.Task[None]:
        task = asyncio.ensure_future(send(*arguments))
        task.add_done_callback(look_at)
        return task

    coordinator._do_commit_offsets = send_watched


def look_at(task: asyncio.Task[Any]) -> None:
    """Takes note of a task's error, so that asyncio does not report it as lost; for a done callback."""
    if not task.cancelled():
        task.exception()
