"""Cuts text into sentences, in any language, and also where there are none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

LONGEST_SENTENCE: Final = 320
"""Characters. What is longer (a log, a list, text without full stops) is taken in pieces of at most this length."""

# The look-behind keeps a row of a thousand full stops from being tried a thousand times.
_END: Final = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’)\]»]*+\s++|[。！？؟।]++[”’」』）]*+\s*+")
_ABBREVIATIONS: Final = frozenset(
    {"mr", "mrs", "ms", "dr", "prof", "st", "sr", "jr", "inc", "ltd", "no", "nr", "vs", "art", "fig", "tel", "approx"}
    | {"ca", "cf", "e.g", "i.e", "z.b", "d.h", "bzw", "u.s", "p.s"}
)
_SAYS_SOMETHING: Final = re.compile(r"[^\W_]")
_LAST_WORD: Final = re.compile(r"[^\s(\"'“‘]+$")
_BREAK: Final = re.compile(r"[;,:–—]\s|\s")
_INTERJECTION: Final = re.compile(
    r"(?:oh|ah|hm+|well|ok|okay|right|now|anyway|also|so|then|by the way|honestly|actually)(?:,|\s*[–—-])\s+"
    r"|(?:and|also)\s+(?=\w)",
    re.IGNORECASE,
)


def split_sentences(text: str) -> list[str]:
    """The sentences in their order, each on one line and without space around it. Marks without a letter or digit are none."""
    pieces = (piece for line in text.splitlines() for sentence in _sentences(line) for piece in _pieces(sentence))
    return [piece for piece in pieces if _SAYS_SOMETHING.search(piece)]


def tighten(sentence: str) -> str:
    """The sentence without an interjection at its head, where most of it is left."""
    found = _INTERJECTION.match(sentence)
    if found is None or len(sentence) < 3 * found.end():
        return sentence
    rest = sentence[found.end() :]
    return rest[0].upper() + rest[1:] if sentence[0].isupper() else rest


def _sentences(line: str) -> Iterator[str]:
    start = 0
    for end in _END.finditer(line):
        if end[0][0] == "." and _is_abbreviated(line[max(start, end.start() - 12) : end.start()]):
            continue
        yield line[start : end.end()]
        start = end.end()
    yield line[start:]


def _is_abbreviated(before: str) -> bool:
    """Whether the full stop after `before` belongs to its last word: `Mr.`, `e.g.`, the initial of a name."""
    found = _LAST_WORD.search(before)
    if found is None:
        return False
    word = found[0]
    return word.lower() in _ABBREVIATIONS or (len(word) == 1 and word.isupper() and word != "I")


def _pieces(sentence: str) -> Iterator[str]:
    text = " ".join(sentence.split())
    start = 0
    while len(text) - start > LONGEST_SENTENCE:
        end = start + LONGEST_SENTENCE
        breaks = [found.end() for found in _BREAK.finditer(text, start + LONGEST_SENTENCE // 2, end)]
        after_marks = [at for at in breaks if not text[at - 2].isalnum()]
        end = (after_marks or breaks or [end])[-1]
        yield text[start:end].strip()
        start = end
    if rest := text[start:].strip():
        yield rest
