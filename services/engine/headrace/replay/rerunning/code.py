"""Today's code, by which recorded jobs are run again: its workers by their names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from headrace.abstract_worker import AbstractWorker, FunctionWorker
from headrace.errors import ConfigurationError


def by_name(workers: Iterable[AbstractWorker[Any]]) -> dict[str, AbstractWorker[Any]]:
    """Workers by their names.

    Raises:
        ConfigurationError: two have the same name: which of them is meant cannot be known.
    """
    named: dict[str, AbstractWorker[Any]] = {}
    for each in workers:
        name = each.definition().name
        other = named.setdefault(name, each)
        if other is not each:
            raise ConfigurationError(
                f"Two workers are named {name!r}, {_place(other)} and {_place(each)}: name one of them alone."
            )
    return named


def _place(worker: AbstractWorker[Any]) -> str:
    """Where the code of a worker stands."""
    code: Any = worker.function if isinstance(worker, FunctionWorker) else type(worker)
    return f"{code.__module__}:{code.__qualname__}"
