"""The workers of a module that the user names, and what they are told when it cannot be loaded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.engine.loading import load_workers
from headrace.errors import WorkerImportError

WORKERS = """
from headrace import AbstractWorker, worker

@worker
def count(args: dict, ctx): ...

class Greet(AbstractWorker):
    name = "greet"
    def run(self, args, ctx): ...
"""
WITH_ARGUMENTS = """
from headrace import AbstractWorker

class Greet(AbstractWorker):
    name = "greet"
    def __init__(self, word): ...
    def run(self, args, ctx): ...

one = Greet("hello")
"""


@pytest.fixture
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a package `loaded_app`, in the folder that the command is started in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    folder = tmp_path / "loaded_app"
    folder.mkdir()
    yield folder
    for name in [each for each in sys.modules if each.partition(".")[0] == "loaded_app"]:
        del sys.modules[name]


def refused(path: str) -> str:
    with pytest.raises(WorkerImportError) as caught:
        load_workers([path])
    return str(caught.value)


def test_all_workers_of_a_module_or_one(application: Path) -> None:
    (application / "workers.py").write_text(WORKERS)
    assert [each.name for each in load_workers(["loaded_app.workers"])] == ["count", "greet"]
    assert [each.name for each in load_workers(["loaded_app.workers:Greet"])] == ["greet"]


def test_what_a_module_raises_is_told_with_its_line_and_nothing_of_ours(application: Path) -> None:
    (application / "helpers.py").write_text("def connect():\n    raise RuntimeError('no database')\n")
    (application / "workers.py").write_text("from loaded_app.helpers import connect\n\nconnect()\n")
    told = refused("loaded_app.workers").splitlines()
    assert told[0] == "The workers' module 'loaded_app.workers' cannot be imported:"
    assert f'  File "{application / "workers.py"}", line 3, in <module>' in told
    assert f'  File "{application / "helpers.py"}", line 2, in connect' in told
    assert told[-1] == "RuntimeError: no database"
    assert sum(line.startswith("  File ") for line in told) == 2


def test_an_error_with_a_cause_has_neither_of_them_from_the_machinery(application: Path) -> None:
    (application / "workers.py").write_text(
        "try:\n    import loaded_app.gone\nexcept ImportError as e:\n    raise ValueError from e\n"
    )
    told = refused("loaded_app.workers")
    assert "No module named 'loaded_app.gone'" in told and "direct cause" in told
    assert "importlib" not in told and "loading.py" not in told


def test_a_line_that_is_no_python_is_shown(application: Path) -> None:
    (application / "workers.py").write_text("x = 1\ndef broken(:\n")
    told = refused("loaded_app.workers")
    assert f'File "{application / "workers.py"}", line 2' in told and "SyntaxError" in told


def test_a_module_that_is_not_there_is_told_in_one_line() -> None:
    told = refused("not_there_at_all.workers")
    assert told == (
        "The workers' module 'not_there_at_all.workers' cannot be imported: "
        "ModuleNotFoundError(\"No module named 'not_there_at_all'\")."
    )


@pytest.mark.parametrize(
    "path", ["loaded_app/workers.py", "./loaded_app/workers.py", "loaded_app/workers", "loaded_app/workers.py:one"]
)
def test_a_file_is_answered_with_its_module(application: Path, path: str) -> None:
    (application / "workers.py").write_text(WORKERS)
    assert refused(path).endswith(" is a file's path: give the module, loaded_app.workers.")
    assert refused(str(application / "workers.py")).endswith("give the module, loaded_app.workers.")
    assert refused("workers.py").endswith("give the module, workers.")


def test_a_class_that_needs_arguments_is_answered_with_how_to_name_an_object(application: Path) -> None:
    (application / "workers.py").write_text(WITH_ARGUMENTS)
    told = refused("loaded_app.workers")
    assert told.endswith(" Make one in loaded_app.workers, such as `one = Greet(...)`, and name it: loaded_app.workers:one.")
    assert [each.name for each in load_workers(["loaded_app.workers:one"])] == ["greet"]
