"""`headrace schemas`: JSON Schema of every record and tool, written from the models."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from pydantic import BaseModel

from headrace.models import RECORDS, SCHEMA_VERSION, ClosedModel
from headrace.tool_models import TOOLS, ToolCall, ToolCallRecord

INDEX = "README.md"
MEND = "`headrace schemas` writes them anew"

_INTRODUCTION = """\
# Schemas

JSON Schema (draft 2020-12) of what goes over a wire. Written by `headrace schemas` from its models: change those, not
these files. headrace itself never reads them.

Names are camelCase. Records, and arguments of tools, are described as they are read: a field that has a default may be left out.
Answers of tools are described as they are written: a field is left out only when it has no value. Records and answers may carry
fields that this version does not know; arguments may not.
"""


def schemas(
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("schemas"),
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if a file is not what would be written.")] = False,
) -> None:
    """Write JSON Schema of every record and tool, or check that what is written is up to date."""
    files = schema_files()
    if check:
        if stale := stale_files(out, files):
            typer.echo(f"Not up to date in {out}: {', '.join(stale)}. {MEND}.", err=True)
            raise typer.Exit(1)
        typer.echo(f"The {len(files)} files in {out} are up to date.")
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (out / name).write_bytes(content)
        for name in superfluous_files(out, files):
            (out / name).unlink()
    except OSError as error:
        typer.echo(f"Error: {out} cannot be written: {error.strerror}. Name another folder with --out.", err=True)
        raise typer.Exit(2) from None
    typer.echo(f"Wrote {len(files)} files to {out}.")


def schema_files() -> dict[str, bytes]:
    """The content of each file, by its name."""
    files = {f"{kebab_case(model.__name__)}.json": _document(model) for model in (*RECORDS, *TOOLS)}
    return files | {INDEX: _index()}


def stale_files(folder: Path, files: dict[str, bytes]) -> list[str]:
    """Names of files that are missing, differ from what they should be, or should not be there."""
    wrong = [name for name, content in files.items() if _content(folder / name) != content]
    return sorted(wrong + superfluous_files(folder, files))


def superfluous_files(folder: Path, files: dict[str, bytes]) -> list[str]:
    """Names of schemas of models that there are no longer."""
    return sorted(path.name for path in folder.glob("*.json") if path.name not in files)


def kebab_case(name: str) -> str:
    """`JobRecord` as `job-record`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


def _document(model: type[BaseModel]) -> bytes:
    from headrace_gateway.tools.schema import DIALECT, read_schema, written_schema

    schema = read_schema(model) if is_read(model) else written_schema(model)
    # Without a host name: nobody is to look for it there.
    identity = f"urn:headrace:schema:{kebab_case(model.__name__)}:{SCHEMA_VERSION}"
    document: dict[str, Any] = {"$schema": DIALECT, "$id": identity, **schema}
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def is_read(model: type[BaseModel]) -> bool:
    """Whether others write what the model describes: every record, a tool call, a tool's arguments."""
    return model in (*RECORDS, ToolCall, ToolCallRecord) or issubclass(model, ClosedModel)


def _index() -> bytes:
    lines = [_INTRODUCTION, "## Records", "", *_table(RECORDS), "", "## Tools", "", *_table(TOOLS)]
    return ("\n".join(lines) + "\n").encode()


def _table(models: tuple[type[BaseModel], ...]) -> list[str]:
    rows = []
    for model in models:
        meaning = " ".join((model.__doc__ or "").split("\n\n")[0].split()).replace("|", "\\|")
        name = f"{kebab_case(model.__name__)}.json"
        rows.append(f"| [`{name}`]({name}) | {meaning} |")
    return ["| file | what it describes |", "|---|---|", *rows]


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
