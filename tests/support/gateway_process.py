"""A gateway as a process of its own, as operators start it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from headrace import Settings

PATIENCE = 60.0


def environment_of(settings: Settings, **environment: str) -> dict[str, str]:
    """The environment of a process with the broker and the namespace of these settings, and these variables."""
    return {
        "PATH": "/usr/bin:/bin",
        "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers or "",
        "HEADRACE_NAMESPACE": settings.namespace,
        "HEADRACE_DATA_DIRECTORY": str(settings.data_directory),
        **environment,
    }


@asynccontextmanager
async def gateway_process(settings: Settings, *options: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`headrace gateway`, which is killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("headrace")),
        "gateway",
        *options,
        env=environment_of(settings, **environment),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def address_of(process: asyncio.subprocess.Process) -> str:
    """Where a gateway answers, as soon as it says so."""
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        line = (await process.stdout.readline()).decode()
    assert "answers at " in line, (line, b"" if process.stderr is None else await process.stderr.read())
    return line.split("answers at ")[1].split(";")[0]
