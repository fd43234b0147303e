"""The documents: their links lead somewhere, and the commands that they name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from headrace.cli.main import application
from support.markdown import ROOT, blocks, links

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "schemas").glob("*.md")])
MAKEFILE = ROOT / "Makefile"


def heading_anchors(document: Path) -> set[str]:
    """The anchors that a forge makes of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for link in links(document):
        if link.startswith("https://"):
            continue  # what others keep is theirs to keep
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        if not target.exists() or (anchor and anchor not in heading_anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_index_names_every_document() -> None:
    linked = {(ROOT / "docs" / link.partition("#")[0]).resolve() for link in links(ROOT / "docs" / "index.md")}
    assert [path.name for path in (ROOT / "docs").glob("*.md") if path.name != "index.md" and path not in linked] == []


def commands() -> dict[str, set[str]]:
    """Each command of `headrace`, with the options that it and its subcommands take."""
    group = typer.main.get_command(application)
    found = {}
    for name, command in getattr(group, "commands").items():  # noqa: B009 - typer's class is a group, and says it too late
        inner = [command, *getattr(command, "commands", {}).values()]
        found[name] = {option for each in inner for parameter in each.params for option in parameter.opts} | {"--help"}
        found[name] |= set(getattr(command, "commands", {}))
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_exist(document: Path) -> None:
    known, targets = commands(), set(re.findall(r"^([a-z-]+):", MAKEFILE.read_text(encoding="utf-8"), re.MULTILINE))
    text = document.read_text(encoding="utf-8")
    inline = re.findall(r"`([^`\n]+)`", text)
    shell = [line for block in blocks(document, "bash") for line in block.code.splitlines()]
    wrong = []
    for line in (*inline, *shell):
        words = line.partition("#")[0].split()
        if words[:1] == ["make"] and len(words) > 1 and "=" not in words[1] and words[1] not in targets:
            wrong.append(line)
        if words[:1] == ["headrace"] and len(words) > 1 and not words[1].startswith("-"):
            options = {word.partition("=")[0] for word in words[2:] if word.startswith("--")}
            if words[1] not in known or not options <= known[words[1]]:
                wrong.append(line)
    assert wrong == []
