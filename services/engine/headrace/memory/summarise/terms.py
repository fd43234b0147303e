"""What a sentence is about: its terms, and of which kind each is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple

from snowballstemmer.english_stemmer import EnglishStemmer

from headrace.memory.summarise.vocabulary import CALENDAR, COUNTS, STOP_WORDS

_TOKEN: Final = re.compile(r"\d[\d.,:/]*\d[^\W\d]*%?|\w+(?:[-.'’_/@:]\w+)*%?")
_UNSPACED: Final = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]")
_IDENTIFIER: Final = re.compile(r".*(?:\w[_/@]\w|[^\W\d]\.[^\W\d]|[a-z][A-Z]|[^\W\d]\d|\d[^\W\d]).*|[A-Z][A-Z0-9-]+")
_LONGEST_TERM: Final = 60


class Kind(Enum):
    """The kinds of terms. They carry different amounts of information."""

    WORD = "word"
    NAME = "name"
    IDENTIFIER = "identifier"
    FIGURE = "figure"
    COUNT = "count"
    CALENDAR = "calendar"


EXACT: Final = frozenset({Kind.FIGURE, Kind.IDENTIFIER, Kind.CALENDAR, Kind.COUNT})
"""Kinds that say something exactly: how many, when, which."""


class Term(NamedTuple):
    """A term; all its forms have the same key."""

    key: str
    kind: Kind


def tokens_of(sentence: str) -> list[str]:
    """Words, figures and identifiers as they stand. Script without spaces between words comes in overlapping pairs."""
    tokens: list[str] = []
    for token in _TOKEN.findall(sentence):
        if _UNSPACED.search(token):
            tokens.extend(token[at : at + 2] for at in range(max(1, len(token) - 1)))
        else:
            tokens.append(token[:_LONGEST_TERM])
    return tokens


class TermReader:
    """Reads terms out of tokens. From a whole conversation it knows which words are names there."""

    def __init__(self, sentences: Sequence[Sequence[str]], speakers: Iterable[str]) -> None:
        self._names = _names_in(sentences) | {part.lower() for speaker in speakers for part in speaker.split()}

    def read(self, tokens: Sequence[str]) -> dict[str, Kind]:
        """The terms of a sentence by their keys, without the words that stand in every text."""
        return dict(term for token in tokens if (term := self._term(token)) is not None)

    def _term(self, token: str) -> Term | None:
        lower = _without_possessive(token.lower())
        if lower in COUNTS:
            return Term(lower, Kind.COUNT)
        if lower in CALENDAR:
            return Term(lower, Kind.CALENDAR)
        if lower in STOP_WORDS or (len(lower) < 2 and not lower.isdigit()):
            return None
        is_identifier = _IDENTIFIER.fullmatch(token) is not None
        if token[0].isdigit() and not is_identifier:
            return Term(lower.replace(",", "").rstrip("%"), Kind.FIGURE)
        if lower in self._names:
            return Term(lower, Kind.NAME)
        return Term(lower, Kind.IDENTIFIER) if is_identifier else Term(_stem(lower), Kind.WORD)


def _names_in(sentences: Sequence[Sequence[str]]) -> set[str]:
    """Words that are rarely written without a capital, and have one also where no sentence begins."""
    capital: Counter[str] = Counter()
    small: Counter[str] = Counter()
    for tokens in sentences:
        for token in tokens[1:]:
            if token[0].islower():
                small[_without_possessive(token)] += 1
            elif token[0].isupper() and not (len(token) > 1 and token.isupper()):
                capital[_without_possessive(token.lower())] += 1
    return {word for word, times in capital.items() if len(word) > 1 and 2 * times >= small[word]} - STOP_WORDS


def _without_possessive(word: str) -> str:
    for ending in ("'s", "’s"):
        word = word.removesuffix(ending)
    return word


# A stemmer keeps the word it works on in itself, and summaries are made in several threads: each call has its own.
@lru_cache(maxsize=20_000)
def _stem(word: str) -> str:
    return str(EnglishStemmer().stemWord(word)) if word.isascii() else word
