"""What is left of a replay in a sandbox that is interrupted or killed, and what is said of it."""

from __future__ import annotations

import json
import re
import signal
import subprocess

import pytest

from headrace import Settings
from headrace.kafka.log import KafkaLog
from support.clusters import state_of
from support.engines import eventually
from support.log import plain_topic
from support.replay_commands import PATIENCE_SECONDS, STREAM, of_sandboxes, replay, started, with_jobs

HIDDEN_CURSOR, SHOWN_CURSOR = "\x1b[?25l", "\x1b[?25h"


@pytest.fixture
async def recorded(settings: Settings) -> Settings:
    """A namespace in which 30 jobs have ended, and no engine runs."""
    return await with_jobs(settings)


async def until_half_way(settings: Settings) -> None:
    """Waits until jobs run in a sandbox: its engine has written of them."""

    async def begun() -> bool:
        ends = (await state_of(settings)).ends
        return any(".replay-" in name and name.endswith(".job-state") and sum(each.values()) > 25 for name, each in ends.items())

    await eventually(begun, within=PATIENCE_SECONDS)


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
async def test_what_is_interrupted_removes_its_sandbox(recorded: Settings, kind: signal.Signals) -> None:
    before = await state_of(recorded)
    with started(recorded, "hang", *STREAM, "--sandbox") as process:
        await until_half_way(recorded)
        process.send_signal(kind)
        assert process.wait(PATIENCE_SECONDS) == 130
    assert await state_of(recorded) == before


async def test_what_is_kept_is_told_after_an_interruption_too(recorded: Settings) -> None:
    before = await state_of(recorded)
    with started(recorded, "hang", *STREAM, "--sandbox", "--keep") as process:
        await until_half_way(recorded)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=PATIENCE_SECONDS)
    [name] = re.findall(r"^Interrupted\.\nKept: the namespace (\S+)\. Look at it by", told)
    assert f"Removed {name}." in replay(recorded, "", "clean").stdout
    assert await state_of(recorded) == before


# Where a removal was over before it was caught, it is caught in another replay.
TRIES = 5


async def made_again(log: KafkaLog, topic: str, process: subprocess.Popen[str]) -> bool:
    """Waits until a topic is deleted, and makes it again: the sandbox with that topic is being removed all the while.

    Returns:
        Whether the replay still ran then.
    """

    async def has_been(there: bool) -> bool:
        return process.poll() is not None or (topic in await log.topic_names()) is there

    await eventually(lambda: has_been(True), within=PATIENCE_SECONDS)
    await eventually(lambda: has_been(False), within=PATIENCE_SECONDS)
    if process.poll() is not None:
        return False
    await log.create_topics([plain_topic(topic)])
    return True


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
async def test_what_is_interrupted_while_its_sandbox_is_removed_removes_it_and_shows_what_came_of_the_jobs(
    recorded: Settings, log: KafkaLog, kind: signal.Signals
) -> None:
    before = await state_of(recorded)
    for number in range(TRIES):
        name = f"{recorded.namespace}.replay-{number}"
        with started(recorded, "fail", *STREAM, "--into", name) as process:
            caught = await made_again(log, f"{name}.job-state", process)
            process.send_signal(kind)
            caught = caught and await made_again(log, f"{name}.job-state", process)
            table, told = process.communicate(timeout=PATIENCE_SECONDS)
        # What was made when the removal was over stays.
        if (late := f"{name}.job-state") not in await log.topic_names() and caught:
            break
        await log.delete_topics([late])
    assert (process.returncode, told) == (130, "Interrupted.\n")
    assert table.startswith("30 jobs replayed in ")
    assert "15    newly-failing" in table
    assert await state_of(recorded) == before


async def test_what_is_interrupted_twice_while_its_sandbox_is_removed_says_what_it_leaves(
    recorded: Settings, log: KafkaLog
) -> None:
    before = await state_of(recorded)
    for number in range(TRIES):
        name = f"{recorded.namespace}.replay-{number}"
        with started(recorded, "", *STREAM, "--into", name, FORCE_COLOR="1") as process:
            caught = await made_again(log, f"{name}.job-state", process)
            process.send_signal(signal.SIGINT)
            caught = caught and await made_again(log, f"{name}.job-state", process)
            process.send_signal(signal.SIGINT)
            table, told = process.communicate(timeout=PATIENCE_SECONDS)
        if f"{name}.replay.marker" in await log.topic_names() and caught:
            break
        await log.delete_topics([f"{name}.job-state"])
    assert process.returncode == 130
    assert "30 jobs replayed in " in table
    assert told.rindex(SHOWN_CURSOR) > told.rindex(HIDDEN_CURSOR)
    assert told.endswith(
        f"Interrupted.\nThe sandbox {name} is left, not all of it removed. `headrace replay clean --namespace"
        f" {recorded.namespace}` removes it, which takes 20 s, and with --all at once.\n"
    )
    assert f"Removed {name}." in replay(recorded, "", "clean", "--all").stdout
    assert await state_of(recorded) == before


async def test_what_a_killed_one_leaves_is_found_and_removed(recorded: Settings) -> None:
    before = await state_of(recorded)
    with started(recorded, "hang", *STREAM, "--sandbox") as process:
        await until_half_way(recorded)
        running = replay(recorded, "", "clean")
        assert running.returncode == 0, running.stderr
        assert f"its replay runs, in process {process.pid} of " in running.stdout
        assert "Removed" not in running.stdout
        process.kill()
        process.wait()
    left = of_sandboxes(await state_of(recorded), recorded)
    assert len(left) > 5
    cleaned = replay(recorded, "", "clean", "--json")
    assert cleaned.returncode == 0, cleaned.stderr
    names = json.loads(cleaned.stdout)["removed"]
    assert names == [left[0].removesuffix(".control")]
    assert await state_of(recorded) == before
    assert "No replay has left a sandbox" in replay(recorded, "", "clean").stdout
