"""The workers of a module that the user names."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Iterable
from typing import Any

from headrace.errors import WorkerImportError
from headrace.worker import AbstractWorker


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
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module raises while it is imported
        raise WorkerImportError(f"The workers' module {module_name!r} cannot be imported: {error!r}.") from error
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


def _as_worker(value: Any, path: str) -> AbstractWorker[Any] | None:
    if isinstance(value, AbstractWorker):
        return value
    if inspect.isclass(value) and issubclass(value, AbstractWorker) and not inspect.isabstract(value):
        try:
            return value()
        except TypeError as error:
            raise WorkerImportError(f"{path} cannot be made without arguments ({error}): name a worker object.") from error
    return None
