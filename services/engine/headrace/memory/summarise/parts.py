"""Divides a text that is too long for one request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

# Where to cut, best first: after a paragraph, a sentence, a word.
_BREAKS: Final = (
    re.compile(r"\n[^\S\n]*\n\s*"),
    re.compile(r"[.!?…][\"'”’)\]]*\s+|[。！？؟।]|\n"),
    re.compile(r"\s+"),
)


def parts_of(text: str, longest: int) -> Iterator[str]:
    """The text in parts of at most `longest` characters. Together they are the text.

    Each ends at the last break of the best kind in its second half, so that none is small but the last; where there is no break
    of any kind, in the midst of a word.
    """
    start = 0
    while len(text) - start > longest:
        end = start + longest
        for kind in _BREAKS:
            if breaks := [found.end() for found in kind.finditer(text, start + longest // 2, end)]:
                end = breaks[-1]
                break
        yield text[start:end]
        start = end
    yield text[start:]
