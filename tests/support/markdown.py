"""What the documents of the project say, in parts that a test can try."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE_NAME = re.compile(r"`([\w/]+\.py)`")
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code.

    Attributes:
        language: what stands behind its opening fence.
        file: the Python file that the text before it names last; None where it names none.
    """

    language: str
    code: str
    file: str | None


def blocks(document: Path, language: str) -> list[Block]:
    """The blocks of a language, in their order."""
    text, found, before = document.read_text(encoding="utf-8"), [], 0
    for match in _BLOCK.finditer(text):
        names = _FILE_NAME.findall(text, before, match.start())
        before = match.end()
        if match[1] == language:
            found.append(Block(match[1], match[2], names[-1] if names else None))
    return found


def links(document: Path) -> list[str]:
    """The targets of a document's links, code aside."""
    return _LINK.findall(_BLOCK.sub("", document.read_text(encoding="utf-8")))
