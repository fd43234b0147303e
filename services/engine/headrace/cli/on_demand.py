"""A group of commands whose code is imported when one of them is asked for: no command waits for what the others need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup


class GroupOnDemand(TyperGroup):
    """A group with further commands, behind those that are registered with it.

    Attributes:
        places: by name of the command, `module:function` or, of a Typer with commands of its own, `module:application`. The
            module is imported when the command is run, or when its help is shown, which the help of the whole group does, too.
    """

    places: ClassVar[Mapping[str, str]] = {}

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands({**self.commands, **self.places})


class _Commands(MutableMapping[str, Any]):
    """Typer's commands by name, in their order. Names and their number are known without an import."""

    def __init__(self, commands: Mapping[str, Any]) -> None:
        """Takes commands, and places of commands."""
        self._commands = dict(commands)

    def __getitem__(self, name: str) -> Any:
        found = self._commands[name]
        if isinstance(found, str):
            found = self._commands[name] = _command(name, found)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._commands

    def __iter__(self) -> Iterator[str]:
        return iter(self._commands)

    def __len__(self) -> int:
        return len(self._commands)

    def __setitem__(self, name: str, command: Any) -> None:
        self._commands[name] = command

    def __delitem__(self, name: str) -> None:
        del self._commands[name]


def _command(name: str, place: str) -> Any:
    module, attribute = place.split(":")
    found = getattr(import_module(module), attribute)
    group = typer.Typer(pretty_exceptions_enable=False)
    if isinstance(found, typer.Typer):
        group.add_typer(found, name=name)
    else:
        group.command(name)(found)
    return typer.main.get_group(group).commands[name]
