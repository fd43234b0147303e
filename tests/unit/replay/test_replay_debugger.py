"""Where the debugger of a replayed job begins."""

from __future__ import annotations

import importlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from headrace import AbstractWorker
from headrace.cli.replay_debugger import LoadedCode, debug
from headrace.engine import outcome
from headrace.workers import memory_compaction

SHOP = """
from headrace import worker
from shop_of_tests.prices import price_of


@worker
def sells(args, ctx):
    here = "the worker"
    return price_of(args)
"""
PRICES = """
from library_of_tests import look_up


def price_of(args):
    here = "the prices"
    return look_up(args)
"""
LIBRARY = """
def look_up(args):
    here = "the library"
    return fail(args)


def fail(args):
    here = "below"
    raise LookupError("nothing is known of it")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder, with a virtual environment in it."""
    libraries = tmp_path / ".venv" / "lib" / "python3" / "site-packages"
    package = tmp_path / "src" / "shop_of_tests"
    for path, text in {
        package / "workers.py": SHOP,
        package / "prices.py": PRICES,
        libraries / "library_of_tests.py": LIBRARY,
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path / "src"))
    monkeypatch.syspath_prepend(str(libraries))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] in ("shop_of_tests", "library_of_tests")]:
        del sys.modules[name]


@pytest.fixture
def sells(folder: Path) -> AbstractWorker[Any]:
    made: AbstractWorker[Any] = importlib.import_module("shop_of_tests.workers").sells
    return made


def frames_of(worker: AbstractWorker[Any]) -> TracebackType:
    with pytest.raises(LookupError) as raised:
        worker.run({}, None)  # type: ignore[arg-type]
    frames = raised.value.__traceback__
    assert frames is not None
    return frames


@pytest.mark.parametrize("started", [".", "elsewhere"], ids=["in its folder", "elsewhere"])
def test_it_begins_in_the_deepest_frame_of_the_code(
    sells: AbstractWorker[Any], folder: Path, started: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("p ('1', here)\ndown\ndown\np ('2', here)\nup\nup\nup\np ('3', here)\nq\n"))
    debug(frames_of(sells), LoadedCode(sells, folder / started))
    shown = capsys.readouterr()
    assert "('1', 'the prices')" in shown.out
    assert "('2', 'below')" in shown.out
    assert "('3', 'the worker')" in shown.out
    assert "2 frames further down" in shown.err


def test_where_no_frame_is_of_the_code_it_begins_in_the_deepest(
    sells: AbstractWorker[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("p ('1', here)\nq\n"))
    debug(frames_of(sells), LoadedCode(memory_compaction.MemoryCompactionWorker(), tmp_path / "elsewhere"))
    shown = capsys.readouterr()
    assert ("('1', 'below')" in shown.out, shown.err) == (True, "")


def test_what_is_of_the_code(sells: AbstractWorker[Any], folder: Path) -> None:
    code = LoadedCode(sells, folder)
    (folder / "by_itself.py").touch()
    assert code.has(str(folder / "by_itself.py"))
    assert not code.has(str(folder / "library_of_nobody.py")), "there is no such file"
    assert not code.has("<string>")
    assert not code.has(json.__file__)
    own = LoadedCode(sells, Path(outcome.__file__).parents[2])
    assert not own.has(outcome.__file__), "headrace runs the job, and is not what is looked at"
    assert own.has(memory_compaction.__file__), "but the workers that come with it are"
