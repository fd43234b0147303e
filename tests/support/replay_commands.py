"""Commands of replays as a user types them, in a namespace in which jobs have ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace import Client, Settings
from support import replay_workers
from support.clusters import ClusterState
from support.engines import ended, engine_with, eventually, with_engine

TESTS = Path(replay_workers.__file__).parent.parent
PATIENCE_SECONDS = 120


async def with_jobs(settings: Settings) -> Settings:
    """Has 30 jobs done in a namespace; afterwards no engine runs."""
    async with engine_with(with_engine(settings, janitor=False), replay_workers.Count), Client(settings) as client:
        jobs = await client.enqueue_many("count", [{"number": number} for number in range(30)], {"userId": "ada"})
        for job in jobs:
            await ended(client, job)
    return settings


def arguments(*words: str) -> list[str]:
    return [sys.executable, "-m", "headrace", *words]


def environment(settings: Settings, mode: str) -> dict[str, str]:
    return {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers or "",
        "HEADRACE_NAMESPACE": settings.namespace,
        "HEADRACE_DATA_DIRECTORY": str(settings.data_directory),
        "REPLAY_MODE": mode,
        "COLUMNS": "200",
    }


def replay(settings: Settings, mode: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return command(settings, mode, "replay", *words, **variables)


def command(settings: Settings, mode: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments(*words), cwd=TESTS, env=environment(settings, mode) | variables, capture_output=True, text=True, check=False,
        timeout=PATIENCE_SECONDS,
    )  # fmt: skip


STREAM = ("stream", "support.replay_workers", "--worker", "count", "--from", "1h")


class Hold:
    """Has a replay wait at a step, which so cannot be missed, where it is started with REPLAY_HOLD as this has it `told`.

    Args:
        step: `marking`, when the topic of a sandbox's marker is there and nothing stands in it; or `removal`, when the sandbox's
            groups are gone, and its topics are there.
    """

    def __init__(self, folder: Path, step: str) -> None:
        self._folder = folder
        self.told = f"{step} {folder}"

    async def held(self) -> None:
        """Returns when the replay waits there."""

        async def is_there() -> bool:
            return (self._folder / "held").exists()

        await eventually(is_there, within=PATIENCE_SECONDS)

    def go_on(self) -> None:
        """Lets it go on."""
        (self._folder / "free").touch()


@contextmanager
def started(
    settings: Settings, mode: str, *words: str, stderr: int = subprocess.PIPE, **variables: str
) -> Iterator[subprocess.Popen[str]]:
    """A replay that runs, and is gone at the end."""
    process = subprocess.Popen(
        arguments("replay", *words),
        cwd=TESTS,
        env=environment(settings, mode) | variables,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def of_sandboxes(state: ClusterState, settings: Settings) -> list[str]:
    return sorted(name for name in (*state.ends, *state.groups) if name.startswith(f"{settings.namespace}.replay-"))
