"""What can be seen of a sentence in its conversation. Every sign is a small number; 0 is its absence."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from headrace.memory.summarise.lines import Turn
from headrace.memory.summarise.terms import EXACT, Kind, TermReader, tokens_of
from headrace.memory.summarise.vocabulary import (
    ADDRESSED,
    ASSENT,
    CLOSED,
    COMMITTED,
    CONCLUDING,
    DECIDED,
    IMPERATIVE,
    NEGATED,
    PAST,
    POINTING_BACK,
    STATES,
)

_ECHO_TURNS: Final = 3
"""Who takes up or confirms what was said does so within this many turns."""
_KNOWN_AFTER: Final = 5
"""Turns after which a subject counts as known from before."""
_ASSENT_TURNS: Final = 2
"""Turns after a proposal in which somebody else may say yes to it."""
_ASSENT_SENTENCES: Final = 3
"""Sentences of a turn that still say what its first word agrees to."""
_TOPIC_TERMS: Final = 8


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence with its terms and signs. `place` is the number of its turn, and its own number within that."""

    place: tuple[int, int]
    text: str
    terms: dict[str, Kind]
    signs: dict[str, float]


def read_sentences(turns: Sequence[Turn]) -> list[Sentence]:
    """All sentences of a conversation, in their order."""
    places = [(number, position) for number, turn in enumerate(turns) for position in range(len(turn.sentences))]
    tokens = [tokens_of(turns[turn].sentences[position]) for turn, position in places]
    reader = TermReader(tokens, {turn.speaker for turn in turns})
    sentences = [
        Sentence((turn, position), turns[turn].sentences[position], reader.read(each), _own_signs(turns[turn], position))
        for (turn, position), each in zip(places, tokens, strict=True)
    ]
    _add_signs_of_terms(sentences, _History(sentences, len(turns)))
    _add_signs_of_neighbours(sentences)
    _add_signs_of_assent(sentences, turns)
    return sentences


def _plain(sentence: str) -> str:
    return sentence.lower().replace("’", "'")


def _own_signs(turn: Turn, position: int) -> dict[str, float]:
    """What stands in the sentence itself."""
    sentence = turn.sentences[position]
    text = _plain(sentence)
    return {
        "length": math.log(len(sentence)) - 4,
        "commas": min(4, sentence.count(", ")) ** 0.5,
        "closed": float(min(2, len(set(CLOSED.findall(text))))),
        "decided": float(min(2, len(set(DECIDED.findall(text))))),
        "committed": float(min(2, len(set(COMMITTED.findall(text))))),
        "concluding": float(CONCLUDING.match(text) is not None),
        "imperative": float(IMPERATIVE.match(text) is not None),
        "negated": float(NEGATED.search(text) is not None),
        "states": float(STATES.search(text) is not None),
        "question": float(text.rstrip("\"'”’) ").endswith(("?", "？", "؟"))),
        "past": float(PAST.search(text) is not None),
        "addressed": float(ADDRESSED.search(text) is not None),
        "pointing_back": float(POINTING_BACK.match(text) is not None),
        "last_of_turn": float(position == len(turn.sentences) - 1),
        "long_turn": min(2.0, len(turn.sentences) / 5),
        "assistant": float(turn.assistant),
    }


class _History:
    """Where in the conversation each term occurs."""

    def __init__(self, sentences: Sequence[Sentence], turns: int) -> None:
        keys: list[set[str]] = [set() for _ in range(turns)]
        self.exact: list[set[str]] = [set() for _ in range(turns)]
        for sentence in sentences:
            turn = sentence.place[0]
            keys[turn].update(sentence.terms)
            self.exact[turn].update(key for key, kind in sentence.terms.items() if kind in EXACT)
        self.first: dict[str, int] = {}
        self.last: dict[str, int] = {}
        self.turns_with: Counter[str] = Counter()
        for turn, mentioned in enumerate(keys):
            self.turns_with.update(mentioned)
            for key in mentioned:
                self.first.setdefault(key, turn)
                self.last[key] = turn
        self._raised_first: dict[tuple[str, str], int] = {}
        self._decided_last: dict[tuple[str, str], int] = {}
        for sentence in sentences:
            for pair in self._subjects(sentence):
                self._raised_first.setdefault(pair, sentence.place[0])
                if _decides(sentence):
                    self._decided_last[pair] = sentence.place[0]

    def echoes(self, sentence: Sentence, turns: Iterable[int]) -> int:
        """How many exact terms of the sentence come again in these turns."""
        near = set().union(*(self.exact[turn] for turn in turns if 0 <= turn < len(self.exact)))
        return sum(1 for key in sentence.terms if key in near)

    def is_superseded(self, sentence: Sentence) -> bool:
        """Whether something was decided on the same subject well after the sentence."""
        later = sentence.place[0] + _ECHO_TURNS
        return any(self._decided_last.get(pair, 0) >= later for pair in self._subjects(sentence))

    def revisits(self, sentence: Sentence) -> int:
        """How many of the sentence's subjects were raised well before it."""
        earlier = sentence.place[0] - _ECHO_TURNS
        return sum(1 for pair in self._subjects(sentence) if self._raised_first[pair] < earlier)

    def _subjects(self, sentence: Sentence) -> Iterator[tuple[str, str]]:
        """The sentence's rarest terms that recur, in pairs: two sentences that share a pair speak of the same thing."""
        subjects = [key for key, kind in sentence.terms.items() if kind not in EXACT or kind is Kind.IDENTIFIER]
        recurring = [key for key in subjects if self.turns_with[key] > 1]
        rarest = sorted(recurring, key=lambda key: (self.turns_with[key], key))[:_TOPIC_TERMS]
        return combinations(sorted(rarest), 2)


def _decides(sentence: Sentence) -> bool:
    return any(sentence.signs[sign] for sign in ("closed", "decided", "concluding"))


def _add_signs_of_terms(sentences: Sequence[Sentence], history: _History) -> None:
    """What kinds of terms a sentence has, and how they run through the conversation."""
    seen: set[str] = set()
    for sentence in sentences:
        turn, terms = sentence.place[0], sentence.terms
        kinds = Counter(terms.values())
        words = [key for key, kind in terms.items() if kind is Kind.WORD]
        subjects = [key for key, kind in terms.items() if kind not in EXACT and history.first[key] < turn - _KNOWN_AFTER]
        sentence.signs.update(
            figures=min(3, kinds[Kind.FIGURE]) ** 0.5,
            identifiers=min(3, kinds[Kind.IDENTIFIER]) ** 0.5,
            names=min(3, kinds[Kind.NAME]) ** 0.5,
            calendar=min(3, kinds[Kind.CALENDAR]) ** 0.5,
            recurring=min(5, sum(1 for key in words if history.turns_with[key] > 2)) ** 0.5,
            single=min(5, sum(1 for key in words if history.turns_with[key] == 1)) ** 0.5,
            new=min(3, sum(1 for key, kind in terms.items() if kind is not Kind.WORD and key not in seen)) ** 0.5,
            known=min(4, len(subjects)) ** 0.5,
            last_mention=float(any(history.last[key] == turn for key in subjects)),
            echoed=min(2, history.echoes(sentence, range(turn + 1, turn + 1 + _ECHO_TURNS))) ** 0.5,
            echoing=min(2, history.echoes(sentence, range(turn - _ECHO_TURNS, turn))) ** 0.5,
            superseded=float(history.is_superseded(sentence)),
            revisiting=min(3, history.revisits(sentence)) ** 0.5,
        )
        seen.update(terms)


def _add_signs_of_neighbours(sentences: Sequence[Sentence]) -> None:
    """Whether a sentence stands beside one that closes a matter: `The loan is with them. That is final.`"""
    for index, sentence in enumerate(sentences):
        beside = [sentences[at] for at in (index - 1, index + 1) if 0 <= at < len(sentences)]
        closed = any(other.signs["closed"] for other in beside if other.place[0] == sentence.place[0])
        sentence.signs["beside_closed"] = float(closed)


def _add_signs_of_assent(sentences: Sequence[Sentence], turns: Sequence[Turn]) -> None:
    """Whether a sentence begins a turn that says yes to something, and whether others then say yes to it."""
    assents = [bool(turn.sentences) and ASSENT.match(_plain(turn.sentences[0])) is not None for turn in turns]
    for sentence in sentences:
        turn, position = sentence.place
        after = range(turn + 1, min(len(turns), turn + 1 + _ASSENT_TURNS))
        sentence.signs.update(
            assenting=float(assents[turn] and position < _ASSENT_SENTENCES),
            assented=float(any(assents[other] and turns[other].speaker != turns[turn].speaker for other in after)),
        )
