"""The workers of a module that the user names."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from headrace.abstract_worker import AbstractWorker
from headrace.errors import WorkerImportError

_MACHINERY = frozenset({__file__, importlib.__file__})


def load_workers(paths: Iterable[str]) -> list[AbstractWorker[Any]]:
    """The workers of each import path: `my_app.workers` for all of a module, `my_app.workers:send_digest` for one.

    Of a module it takes every decorated function, every worker object, and every worker class that it defines itself.

    Raises:
        WorkerImportError: a module cannot be imported, or has no worker.
    """
    # As with `python -m`, the modules of the folder that the command was started in can be imported.
    if (here := os.getcwd()) not in sys.path:  # noqa: PTH109 - sys.path holds text
        sys.path.insert(0, here)
    found: dict[int, AbstractWorker[Any]] = {}
    for path in paths:
        for each in _workers_of(path):
            found[id(each)] = each
    return list(found.values())


def _workers_of(path: str) -> list[AbstractWorker[Any]]:
    module_name, _, attribute = path.partition(":")
    module = _imported(module_name)
    if attribute:
        if not hasattr(module, attribute):
            raise WorkerImportError(f"The module {module_name!r} has no {attribute!r}.")
        made = _as_worker(getattr(module, attribute), path)
        if made is None:
            raise WorkerImportError(f"{path} is no worker: make it with AbstractWorker or the decorator `worker`.")
        return [made]
    workers = [
        made
        for name, value in vars(module).items()
        if not (inspect.isclass(value) and value.__module__ != module.__name__)
        and (made := _as_worker(value, f"{module_name}:{name}")) is not None
    ]
    if not workers:
        raise WorkerImportError(f"The module {module_name!r} has no worker: make one with AbstractWorker or `worker`.")
    return workers


def _imported(name: str) -> ModuleType:
    if (meant := _module_of_file(name)) is not None:
        raise WorkerImportError(f"{name!r} is a file's path: give the module, {meant}.")
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever the user's module raises while it is imported
        raise WorkerImportError(f"The workers' module {name!r} cannot be imported:{_told(error)}") from error


def _module_of_file(path: str) -> str | None:
    """The module that is meant by a file's path; None for a module's name."""
    if not path.endswith(".py") and "/" not in path and os.sep not in path:
        return None
    parts = Path(os.path.relpath(path)).with_suffix("").parts
    return ".".join(part for part in parts if part not in ("..", os.sep))


def _told(error: Exception) -> str:
    """What was raised, and where in the user's code: in a traceback without the machinery that imports a module."""
    raised = traceback.TracebackException.from_exception(error)
    link: traceback.TracebackException | None = raised
    while link is not None:
        own = [frame for frame in link.stack if frame.filename not in _MACHINERY and not frame.filename.startswith("<frozen ")]
        link.stack = traceback.StackSummary.from_list(own)
        link = link.__cause__ or link.__context__
    if not raised.stack and not isinstance(error, SyntaxError):
        return f" {error!r}."  # the module itself is not there
    return "\n" + "".join(raised.format()).rstrip()


def _as_worker(value: Any, path: str) -> AbstractWorker[Any] | None:
    if isinstance(value, AbstractWorker):
        return value
    if inspect.isclass(value) and issubclass(value, AbstractWorker) and not inspect.isabstract(value):
        try:
            return value()
        except TypeError as error:
            module, _, name = path.partition(":")
            raise WorkerImportError(
                f"{path} cannot be made without arguments ({error}). Make one in {module}, such as `one = {name}(...)`, and name"
                f" it: {module}:one."
            ) from error
    return None
