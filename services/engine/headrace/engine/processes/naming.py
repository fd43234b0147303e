"""How a child process finds the worker of its engine: by the name under which it is imported."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from headrace.abstract_worker import AbstractWorker, FunctionWorker
from headrace.errors import ConfigurationError, WorkerImportError


def reference_of(worker: AbstractWorker[Any]) -> str:
    """`module:name` of a worker object that stands in a module, else of its class, which is made anew without arguments.

    Raises:
        ConfigurationError: neither can be had by its name; the message says what to do.
    """
    kind = worker.function if isinstance(worker, FunctionWorker) else type(worker)
    own = [module for name in (kind.__module__, "__main__") if (module := sys.modules.get(name)) is not None]
    for module in (*own, *list(sys.modules.values())):
        if (name := _name_in(module, worker)) is not None:
            return f"{module.__name__}:{name}"
    if inspect.isclass(kind) and not worker._made_with_arguments and _is_importable(kind):
        return f"{kind.__module__}:{kind.__qualname__}"
    raise ConfigurationError(
        f"Worker {worker.name!r} cannot run in processes of its own, which import it by its name: define it at the top of a"
        " module, and make it without arguments, or keep the object in a variable of a module (`render = Render(dpi=300)`)."
    )


def worker_named(reference: str) -> AbstractWorker[Any]:
    """The worker that a reference names.

    Raises:
        WorkerImportError: it cannot be imported here.
    """
    module_name, _, path = reference.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for name in path.split("."):
            found = getattr(found, name)
        made = found() if inspect.isclass(found) else found
    except Exception as error:  # whatever the user's module, or its class, raises
        raise WorkerImportError(f"The worker {reference} cannot be imported in a process of its own: {error!r}.") from error
    if not isinstance(made, AbstractWorker):
        raise WorkerImportError(f"{reference} is no worker in a process of its own, but {made!r}.")
    return made


def _name_in(module: ModuleType, worker: AbstractWorker[Any]) -> str | None:
    names: Iterable[tuple[str, Any]] = list(getattr(module, "__dict__", {}).items())
    return next((name for name, value in names if value is worker and name.isidentifier()), None)


def _is_importable(kind: type[Any]) -> bool:
    found: Any = sys.modules.get(kind.__module__)
    for name in kind.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is kind
