"""The debugger of `headrace replay job --pdb`: it begins in the code that was loaded, and not in a library that it uses."""

from __future__ import annotations

import pdb
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final

import typer

from headrace.abstract_worker import AbstractWorker, FunctionWorker
from headrace.engine.outcome import is_own_code

_LIBRARIES: Final = frozenset({"site-packages", "dist-packages"})


class LoadedCode:
    """The code of a worker: that of its module, of the package in which that is, and all below the user's folder but libraries.

    Args:
        folder: that of the user, in which the command was started.
    """

    def __init__(self, worker: AbstractWorker[Any], folder: Path) -> None:
        module = worker.function.__module__ if isinstance(worker, FunctionWorker) else type(worker).__module__
        self._places = [folder.resolve(), *_places_of(module)]
        self._standard = Path(sysconfig.get_path("stdlib")).resolve()

    def has(self, filename: str) -> bool:
        """Whether a frame of that file is one of it."""
        path = Path(filename).resolve()
        # What is made while a program runs has names such as <string>.
        if not path.is_file() or is_own_code(filename) or path.is_relative_to(self._standard):
            return False
        # A virtual environment may be below the folder, too.
        return any(path.is_relative_to(place) and _LIBRARIES.isdisjoint(path.relative_to(place).parts) for place in self._places)


def debug(frames: TracebackType, code: LoadedCode) -> None:
    """Opens the debugger in the deepest of the frames that is of this code, or else in the deepest of all."""
    debugger = _Debugger(code)
    # What `pdb.post_mortem` does.
    debugger.reset()
    debugger.interaction(None, frames)


class _Debugger(pdb.Pdb):
    def __init__(self, code: LoadedCode) -> None:
        super().__init__()
        self._code = code

    def get_stack(self, f: FrameType | None, t: TracebackType | None) -> tuple[list[tuple[FrameType, int]], int]:
        """The frames, and which of them is shown first."""
        stack, deepest = super().get_stack(f, t)
        loaded = [number for number, (frame, _) in enumerate(stack) if self._code.has(frame.f_code.co_filename)]
        first = loaded[-1] if loaded else deepest
        if first < deepest:
            below = "1 frame" if first == deepest - 1 else f"{deepest - first} frames"
            typer.echo(f"It was raised {below} further down, in what this code uses: `down` leads there.", err=True)
        return stack, first


def _places_of(module_name: str) -> Iterator[Path]:
    """The folder of the package in which a module is, or the file of one that is in none."""
    module = sys.modules.get(module_name)
    file = getattr(module, "__file__", None)
    if file is not None:
        path, package = Path(file).resolve(), getattr(module, "__package__", None)
        yield path.parents[package.count(".")] if package else path
