"""`headrace settings`: what is set, and the page that documents every setting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import annotated_types
import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from headrace.errors import ConfigurationError
from headrace.settings import Settings, SettingsGroup, environment_variable, group_of, is_secret, load_settings

MEND = "`headrace settings --write {}` writes it anew"
MASK = "********"

_INTRODUCTION = """\
# Configuration

Written by `headrace settings --write docs/configuration.md` from `headrace.settings`: change the code, not this page.

Every setting is an environment variable. An option of a command, or a value given in code, wins over it. An empty variable counts
as one that is not set. A secret can also be given as a file: the variable with `_FILE` at its end names a file whose content,
without the closing line break, is the value; the variable without `_FILE` wins. `headrace settings` prints what is in force, with
secrets masked, and a wrong value ends every command with a message that names its variable.
"""


class Setting(NamedTuple):
    """A setting and where it stands."""

    group: type[SettingsGroup]
    name: str
    field: FieldInfo

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return environment_variable(self.group, self.name)

    @property
    def secret(self) -> bool:
        """Whether its value is not to be shown, and can be given as a file."""
        return is_secret(self.field)


def settings(
    write: Annotated[Path | None, typer.Option(help="Write the page that documents every setting to this file.")] = None,
    check: Annotated[Path | None, typer.Option(help="Fail if this file is not the page that would be written.")] = None,
) -> None:
    """Print every setting with the value that is in force; secrets are masked."""
    if write is None and check is None:
        _print_values()
        return
    page = configuration_page()
    if write is not None:
        try:
            write.parent.mkdir(parents=True, exist_ok=True)
            write.write_text(page, encoding="utf-8")
        except OSError as error:
            typer.echo(f"Error: {write} cannot be written: {error.strerror}.", err=True)
            raise typer.Exit(2) from None
        typer.echo(f"Wrote {write}.")
    if check is not None and not is_current(check):
        typer.echo(f"{check} is not up to date. {MEND.format(check)}.", err=True)
        raise typer.Exit(1)


def is_current(file: Path) -> bool:
    """Whether the file is the page as it would be written now."""
    try:
        return file.read_text(encoding="utf-8") == configuration_page()
    except (OSError, UnicodeDecodeError):
        return False


def groups() -> Iterator[tuple[str, type[SettingsGroup]]]:
    """Each group of settings, with the name under which `Settings` has it; its own settings come first, under no name."""
    yield "", Settings
    for name, field in Settings.model_fields.items():
        if (group := group_of(field)) is not None:
            yield name, group


def settings_of(group: type[SettingsGroup]) -> list[Setting]:
    """The settings of one group, without the groups inside it."""
    return [Setting(group, name, field) for name, field in group.model_fields.items() if group_of(field) is None]


def configuration_page() -> str:
    """The page that documents every setting."""
    parts = [_INTRODUCTION]
    for name, group in groups():
        meaning = "What concerns every process." if group is Settings else _first_paragraph(group)
        rows = [
            f"| `{setting.variable}`{_file_variant(setting)} | {_type_text(setting.field)} | {_default_text(setting.field)} "
            f"| {_escaped(setting.field.description or '')} |"
            for setting in settings_of(group)
        ]
        parts.append("\n".join([f"## {name or 'General'}", "", meaning, "", *_HEAD, *rows, ""]))
    return "\n".join(parts)


_HEAD = ("| variable | type | default | meaning |", "|---|---|---|---|")


def _print_values() -> None:
    try:
        values = load_settings()
    except ConfigurationError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from None
    for name, group in groups():
        holder = getattr(values, name) if name else values
        for setting in settings_of(group):
            origin = "" if setting.name in holder.model_fields_set else "  (default)"
            typer.echo(f"{setting.variable}={_shown(getattr(holder, setting.name))}{origin}")


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return MASK if isinstance(value, SecretStr) else str(value)


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The types of which a value may be, without None."""
    if get_origin(annotation) in (Union, UnionType):
        return tuple(item for item in get_args(annotation) if item is not NoneType)
    return (annotation,)


_TYPE_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    Path: "path",
    SecretStr: "secret",
}


def _type_text(field: FieldInfo) -> str:
    kind = _alternatives(field.annotation)[0]
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    return " ".join([_TYPE_NAMES[kind], *_bounds(field)])


def _bounds(field: FieldInfo) -> Iterator[str]:
    signs = {annotated_types.Gt: ">", annotated_types.Ge: "≥", annotated_types.Lt: "<", annotated_types.Le: "≤"}
    for rule in field.metadata:
        for kind, sign in signs.items():
            if isinstance(rule, kind):
                yield f"{sign} {getattr(rule, kind.__name__.lower()):,}"


def _default_text(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    return "" if default is None or default is PydanticUndefined else f"`{default}`"


def _file_variant(setting: Setting) -> str:
    return f", `{setting.variable}_FILE`" if setting.secret else ""


def _first_paragraph(group: type[SettingsGroup]) -> str:
    return " ".join((group.__doc__ or "").split("\n\n")[0].split())


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
