"""A package's public names, each imported from its module when it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def all_names(package: str, public: Sequence[str]) -> Callable[[], list[str]]:
    """The `__dir__` of a package: whoever completes names sees those, too, that nobody has asked for yet."""

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[package]), *public})

    return listed


def names_on_demand(package: str, homes: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """The `__getattr__` of a package. A name that was asked for once is an attribute of the package from then on.

    Args:
        package: its whole name.
        homes: by module, the names that the package has from there. None may be called like a module of the package, which
            becomes an attribute of that name when it is imported.
    """
    modules = {name: module for module, names in homes.items() for name in names}

    def find(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(modules[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return find
