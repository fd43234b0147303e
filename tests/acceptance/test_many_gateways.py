"""Two gateways side by side on one broker: one is stopped and started anew under load, and a stream goes on at the other."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from headrace import Settings
from support.events import EventReader, event_stream
from support.gateway import publish_workers

PATIENCE = 60.0
WORK = {"kind": "digest", "args": {"to": ["x"]}}


class Gateway(NamedTuple):
    """A gateway that runs as a process of its own."""

    process: asyncio.subprocess.Process
    url: str

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=PATIENCE, trust_env=False)


@asynccontextmanager
async def started(settings: Settings, folder: Path) -> AsyncIterator[Gateway]:
    """It has a folder, and so a view, of its own, as on a machine of its own."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable)),
        "-m",
        "headrace",
        "gateway",
        "--port",
        "0",
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": ":".join(sys.path),
            "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers or "",
            "HEADRACE_NAMESPACE": settings.namespace,
            "HEADRACE_DATA_DIRECTORY": str(folder),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            line = (await process.stdout.readline()).decode()
        yield Gateway(process, line.split("answers at ")[1].split(";")[0])
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ready(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(PATIENCE):
        while (answer := await client.get("/readyz")).status_code != 200:
            assert answer.json()["behind"] >= 0
            await asyncio.sleep(0.05)


class Load:
    """Schedules jobs at one gateway, one after another, until that one is not there any more."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.accepted: list[str] = []
        self.some = asyncio.Event()

    async def run(self, most: int) -> None:
        while len(self.accepted) < most:
            try:
                answer = await self._client.post("/tools/scheduler", json=WORK)
            except httpx.ConnectError:
                # Nobody listens any more.
                return
            except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
                # It was sent over a kept connection that was closed at this moment, before it came: then nobody listens, either.
                with pytest.raises(httpx.ConnectError):
                    await self._client.post("/tools/scheduler", json=WORK)
                return
            assert answer.status_code == 200, answer.text
            self.accepted.append(answer.json()["data"]["jobId"])
            if len(self.accepted) == 10:
                self.some.set()


async def all_jobs(client: httpx.AsyncClient) -> set[str]:
    """The ids of all jobs that there are."""
    found: set[str] = set()
    cursor: dict[str, str] = {}
    while True:
        page = (await client.get("/jobs", params={"limit": 100, **cursor})).json()
        found |= {job["id"] for job in page["jobs"]}
        if page["nextCursor"] is None:
            return found
        cursor = {"cursor": page["nextCursor"]}


async def told(stream: EventReader, wanted: set[str]) -> set[str]:
    """Reads until all of these were told of; gives what was told."""
    found: set[str] = set()
    while not wanted <= found:
        found.add((await stream.job())[0])
    return found


async def test_one_of_two_gateways_is_stopped_and_started_anew(settings: Settings, tmp_path: Path) -> None:
    await publish_workers(settings)
    async with started(settings, tmp_path / "two") as second, second.client() as at_second:
        async with started(settings, tmp_path / "one") as first, first.client() as at_first:
            await ready(at_first)
            await ready(at_second)
            load, other = Load(at_first), Load(at_second)
            async with event_stream(at_first, "/events") as stream:
                running = asyncio.create_task(load.run(100_000))
                beside = asyncio.create_task(other.run(200))
                async with asyncio.timeout(PATIENCE):
                    await load.some.wait()
                first.process.send_signal(signal.SIGTERM)
                before: set[str] = set()
                while (event := await stream.next()).name == "job":
                    before.add(event.data["id"])
                assert event.name == "closing"
                assert stream.retry is not None
                async with asyncio.timeout(PATIENCE):
                    await running
                    assert await first.process.wait() == 0
        async with asyncio.timeout(PATIENCE):
            await beside
        accepted = {*load.accepted, *other.accepted}
        async with event_stream(at_second, "/events", stream.last_id) as again:
            after = await told(again, accepted - before)
            assert before | after == accepted
        # Whatever was taken was answered: no call was broken off between the two.
        assert await all_jobs(at_second) == accepted
        # The view of the first is read on from where it was, and has what happened meanwhile.
        async with started(settings, tmp_path / "one") as first, first.client() as at_first:
            await ready(at_first)
            for job_id in (load.accepted[0], load.accepted[-1], other.accepted[-1]):
                assert (await at_first.get(f"/jobs/{job_id}")).status_code == 200
            async with event_stream(at_first, "/events", again.last_id) as there:
                [made] = [await at_second.post("/tools/scheduler", json=WORK)]
                assert made.json()["data"]["jobId"] in await told(there, {made.json()["data"]["jobId"]})
