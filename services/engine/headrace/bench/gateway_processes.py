"""The servers and the load of `headrace bench gateway`, as real processes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from headrace.bench.gateway_load import Load, Measured
from headrace.errors import HeadraceError
from headrace.settings import Settings

_LISTENS: Final = re.compile(rb"http://127\.0\.0\.1:(\d+)")
_START_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.05
_LOAD: Final = "headrace.bench.gateway_load"
# Whatever the environment says of proxies, these requests are to this machine.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class ProcessorSeconds(NamedTuple):
    """The processor time of a server.

    Attributes:
        own: of its own process.
        children: of those that it has started, such as the one that keeps the view of jobs.
    """

    own: float
    children: float


class ServerProcess:
    """A server on a free port of this machine, on the broker and the namespace of the settings.

    Args:
        log: what it prints goes there.
        arguments: of Python.
        environment: settings beside those of the broker and the namespace.
    """

    def __init__(self, settings: Settings, log: Path, arguments: list[str], environment: dict[str, str]) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                env={
                    **os.environ,
                    "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers or "",
                    "HEADRACE_NAMESPACE": settings.namespace,
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.port = 0

    async def started(self) -> None:
        """Returns when it listens.

        Raises:
            HeadraceError: it ended, or did not listen in time.
        """
        deadline = time.monotonic() + _START_SECONDS
        while (found := _LISTENS.search(self._log.read_bytes())) is None:
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self._log.read_text(errors="replace")[-2_000:].strip()
                raise HeadraceError(f"A server to be measured did not start: {said or 'it said nothing'}")
            await asyncio.sleep(_LOOK_SECONDS)
        self.port = int(found[1])

    def used(self) -> ProcessorSeconds:
        """What it and its child processes have used so far; nothing on a system that does not say so in `/proc`."""
        own = _seconds_of(self._process.pid)
        return ProcessorSeconds(own, sum(_seconds_of(child) for child in _children_of(self._process.pid)))

    def terminate(self) -> None:
        """Asks it to end, unless it has ended."""
        self._process.terminate()

    def remove(self) -> None:
        """Ends it, if it has not ended."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _seconds_of(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_bytes().rpartition(b") ")[2].split()
    except OSError:
        return 0.0
    user, system = int(fields[11]), int(fields[12])
    return (user + system) / os.sysconf("SC_CLK_TCK")


def _children_of(process: int) -> list[int]:
    # A process that ends meanwhile takes its folder with it.
    with suppress(OSError):
        files = Path(f"/proc/{process}/task").glob("*/children")
        return [int(child) for file in files for child in file.read_text().split()]
    return []


async def run_load(load: Load) -> Measured:
    """Has a process of its own call a server.

    Raises:
        HeadraceError: it failed.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", _LOAD),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        told, failed = await process.communicate(orjson.dumps(asdict(load)))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise HeadraceError(f"The load could not be made: {failed.decode(errors='replace')[-2_000:].strip()}")
    return Measured(**orjson.loads(told))


async def get(port: int, path: str, credential: str = "") -> tuple[int, Any]:
    """Status and JSON of what a server of this machine answers to a GET."""

    def ask() -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {credential}"} if credential else {}
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
        try:
            with _open(request, timeout=30) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    return await asyncio.to_thread(ask)
