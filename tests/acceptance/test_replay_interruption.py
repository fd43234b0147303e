"""What is left of a replay in a sandbox that is interrupted or killed, and what is said of it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest

from headrace import Settings
from support.clusters import state_of
from support.engines import eventually
from support.replay_commands import PATIENCE_SECONDS, STREAM, Hold, of_sandboxes, replay, started, with_jobs

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


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
async def test_what_is_interrupted_while_its_sandbox_is_removed_removes_it_and_shows_what_came_of_the_jobs(
    recorded: Settings, tmp_path: Path, kind: signal.Signals
) -> None:
    before, hold = await state_of(recorded), Hold(tmp_path, "removal")
    with started(recorded, "fail", *STREAM, "--sandbox", REPLAY_HOLD=hold.told) as process:
        await hold.held()
        process.send_signal(kind)
        hold.go_on()
        table, told = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, told) == (130, "Interrupted.\n")
    assert table.startswith("30 jobs replayed in ")
    assert "15    newly-failing" in table
    assert await state_of(recorded) == before


def interrupt_twice(process: subprocess.Popen[str]) -> None:
    """By two kinds: of one kind two may be taken for one."""
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)


async def test_what_is_interrupted_twice_while_its_sandbox_is_removed_says_what_it_leaves(
    recorded: Settings, tmp_path: Path
) -> None:
    before, hold, name = await state_of(recorded), Hold(tmp_path, "removal"), f"{recorded.namespace}.replay-mine"
    with started(recorded, "", *STREAM, "--into", name, FORCE_COLOR="1", REPLAY_HOLD=hold.told) as process:
        await hold.held()
        interrupt_twice(process)
        table, told = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert "30 jobs replayed in " in table
    assert told.rindex(SHOWN_CURSOR) > told.rindex(HIDDEN_CURSOR)
    assert told.endswith(left_to_clean(recorded, name))
    assert f"Removed {name}." in replay(recorded, "", "clean", "--all").stdout
    assert await state_of(recorded) == before


def left_to_clean(settings: Settings, name: str) -> str:
    return (
        f"Interrupted.\nThe sandbox {name} is left, not all of it removed. `headrace replay clean --namespace"
        f" {settings.namespace}` removes it, which takes 20 s, and with --all at once.\n"
    )


@pytest.mark.parametrize("keep", [(), ("--keep",)], ids=["not kept", "kept"])
async def test_what_is_interrupted_while_its_sandbox_is_made_leaves_nothing(
    recorded: Settings, tmp_path: Path, keep: tuple[str, ...]
) -> None:
    before, hold = await state_of(recorded), Hold(tmp_path, "marking")
    with started(recorded, "", *STREAM, "--sandbox", *keep, REPLAY_HOLD=hold.told) as process:
        await hold.held()
        process.send_signal(signal.SIGINT)
        hold.go_on()
        table, told = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, table, told) == (130, "", "Interrupted.\n")
    assert await state_of(recorded) == before


async def test_what_is_interrupted_twice_while_its_sandbox_is_made_says_what_it_leaves(
    recorded: Settings, tmp_path: Path
) -> None:
    before, hold, name = await state_of(recorded), Hold(tmp_path, "marking"), f"{recorded.namespace}.replay-mine"
    with started(recorded, "", *STREAM, "--into", name, REPLAY_HOLD=hold.told) as process:
        await hold.held()
        interrupt_twice(process)
        table, told = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, table, told) == (130, "", left_to_clean(recorded, name))
    assert of_sandboxes(await state_of(recorded), recorded) == [f"{name}.replay.marker"]
    assert f"Removed {name}." in replay(recorded, "", "clean", "--all").stdout
    assert await state_of(recorded) == before


async def test_the_name_of_a_sandbox_that_is_in_use_is_refused_and_its_replay_goes_on(recorded: Settings, tmp_path: Path) -> None:
    before, gate, name = await state_of(recorded), tmp_path / "gate", f"{recorded.namespace}.replay-mine"
    gate.write_text("10")
    with started(recorded, "gated", *STREAM, "--into", "mine", "--json", REPLAY_GATE=str(gate)) as process:
        await until_half_way(recorded)
        sandboxed = of_sandboxes(await state_of(recorded), recorded)
        for second in ("mine", name):
            refused = replay(recorded, "", *STREAM, "--into", second)
            assert (refused.returncode, refused.stdout) == (2, ""), refused.stderr
            assert refused.stderr.startswith(f"Error: '{name}' cannot be a sandbox: the cluster has {name}."), refused.stderr
        assert of_sandboxes(await state_of(recorded), recorded) == sandboxed
        gate.write_text("30")
        output, told = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, json.loads(output)["counts"]["same"]) == (0, 30), told
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
