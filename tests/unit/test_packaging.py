"""The wheel, the lock file and the commands of the Makefile: what stands between a clone and a working program."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import headrace
from support.markdown import ROOT

LOCK = ROOT / "requirements.lock"
_PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[([a-z0-9,._-]+)\])?==\S+", re.MULTILINE)


@cache
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def pins() -> dict[str, set[str]]:
    """What the lock file pins, and the extras that it names of each."""
    found = _PIN.findall(LOCK.read_text(encoding="utf-8"))
    return {canonicalize_name(name): set(filter(None, extras.split(","))) for name, extras in found}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built as `make wheel` builds it."""
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (built,) = out.glob("headrace-*.whl")
    return zipfile.ZipFile(built)


def modules_and_data(root: Path) -> set[str]:
    """All files of a package, as a wheel names them."""
    return {
        path.relative_to(root.parent).as_posix()
        for path in root.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }


def test_the_wheel_has_all_packages_whole(wheel: zipfile.ZipFile) -> None:
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    folders = ("engine/headrace", "engine/headrace_command", "tools_gateway/headrace_gateway")
    packages = [ROOT / "services" / folder for folder in folders]
    assert names == set().union(*(modules_and_data(package) for package in packages))
    needed = {
        "headrace/py.typed",
        "headrace_gateway/py.typed",
        "headrace/broker/jars.lock.json",
        "headrace/samples/second-bakery.conversation.json",
    }
    assert needed <= names


def described(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


def test_the_wheel_says_what_it_is_and_needs(wheel: zipfile.ZipFile) -> None:
    says = described(wheel)
    assert (says["Name"], says["Version"]) == ("headrace", headrace.__version__)
    assert says["License-Expression"] == "Apache-2.0"
    assert set(says.get_all("Provides-Extra", [])) == {"local", "docker", "openai"}
    scripts = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "headrace = headrace_command:main" in wheel.read(scripts).decode()


def test_one_version(wheel: zipfile.ZipFile) -> None:
    assert headrace.__version__ == project()["project"]["version"]
    assert f"## {headrace.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert wheel.filename is not None
    assert Path(wheel.filename).name.startswith(f"headrace-{headrace.__version__}-")


def test_the_lock_file_pins_all_that_is_asked_for() -> None:
    pinned = pins()
    asked = [
        *project()["project"]["dependencies"],
        *(each for extra in project()["project"]["optional-dependencies"].values() for each in extra),
        *project()["dependency-groups"]["dev"],
        *project()["build-system"]["requires"],
    ]
    missing = [text for text in asked if canonicalize_name(Requirement(text).name) not in pinned]
    assert missing == [], "`make lock` pins them"


def test_extras_that_somebody_needs_are_pinned_with_them() -> None:
    """pip before 23.3 takes the pin of `coverage` for none of `coverage[toml]`, and stops at the next version that comes out."""
    pinned = pins()
    needed: dict[str, set[str]] = {}
    for distribution in metadata.distributions():
        extras = {"", *pinned.get(canonicalize_name(distribution.metadata["Name"]), set())}
        for requirement in map(Requirement, distribution.requires or []):
            if any(requirement.marker is None or requirement.marker.evaluate({"extra": extra}) for extra in extras):
                needed.setdefault(canonicalize_name(requirement.name), set()).update(requirement.extras)
    assert {"toml"} <= needed["coverage"]
    assert {name: extras - pinned[name] for name, extras in needed.items() if extras - pinned[name]} == {}


def test_every_pin_has_a_hash_and_no_address() -> None:
    text = LOCK.read_text(encoding="utf-8")
    assert re.findall(r"https?:|file:|--index-url|--extra-index-url|--find-links", text) == []
    for entry in re.split(r"\n(?=\S)", text.strip()):
        assert _PIN.match(entry), entry
        assert "--hash=sha256:" in entry, entry


def written_files() -> Iterator[Path]:
    """What people wrote: no environments, caches or data."""
    made = {"dist", "build", "htmlcov", "__pycache__"}
    for entry in ROOT.iterdir():
        if entry.is_file():
            if not entry.name.startswith(".") or entry.name in {".gitignore", ".dockerignore"}:
                yield entry
        elif entry.name == ".ci" or not (entry.name.startswith(".") or entry.name in made):
            for path in entry.rglob("*"):
                inside = path.relative_to(entry).parts
                if path.is_file() and not any(part in made or part.startswith(".") for part in inside):
                    yield path


def test_no_file_configures_a_registry_or_names_a_folder_of_this_machine() -> None:
    """Packages come from wherever the machine's own clients take them; paths are those of whoever has the project."""
    registries = [r"--(extra-)?index-url[ =]+http", r"--find-links[ =]+http", r"registry *= *\"?http", r"<repositor(y|ies)>"]
    folders = [rf"{re.escape(str(folder))}(/|\b)" for folder in (ROOT, Path.home()) if folder != Path(folder.anchor)]
    expression = re.compile("|".join([*registries, *folders, r"/home/\w"]).encode())
    found = [path for path in written_files() if path != Path(__file__) and expression.search(path.read_bytes())]
    assert [str(path.relative_to(ROOT)) for path in found] == []


def test_every_address_is_one_that_is_meant() -> None:
    """Of other hosts only those that name a standard, and made-up ones: a registry's address could not come in unseen."""
    meant = {"json-schema.org", "semver.org", "www.apache.org"}
    address = re.compile(rb"https?://([A-Za-z0-9.-]+\.[A-Za-z]{2,})")
    hosts = {host.decode() for path in written_files() for host in address.findall(path.read_bytes())}
    # No registry can have a name under `example`: it is kept for made-up ones (RFC 2606).
    assert {host for host in hosts if not host.lower().endswith(".example")} <= meant


def prerequisites() -> dict[str, set[str]]:
    """The targets of the Makefile, with what each needs first, as make understands them."""
    listed = subprocess.run(
        ["make", "--print-data-base", "--dry-run", "help"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return {name: set(needed.split()) for name, needed in re.findall(r"^([a-z][a-z-]*):(.*)$", listed, re.MULTILINE)}


def test_every_target_sets_up_what_it_needs() -> None:
    """Nobody has to call `make setup` first."""
    targets = prerequisites()
    assert {"setup", "demo", "test", "check", "wheel"} <= set(targets)
    alone = {"help", "clean", "env"}
    ready = {"setup", *alone}
    while more := {name for name, needed in targets.items() if needed and needed & ready - alone} - ready:
        ready |= more
    assert set(targets) - ready == set()
    assert targets["setup"] == {".venv/.installed"}


def test_the_script_of_continuous_integration_runs_what_the_readme_names() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make check && make test" in script
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
