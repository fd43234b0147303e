"""Chooses the sentences of an extract: the most worth for the room, and little twice."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from headrace.memory.summarise.features import Sentence
from headrace.memory.summarise.lines import Draft
from headrace.memory.summarise.terms import Kind

_WEIGHT: Final[Mapping[Kind, float]] = {
    Kind.FIGURE: 1.0,
    Kind.IDENTIFIER: 1.0,
    Kind.NAME: 0.6,
    Kind.CALENDAR: 0.6,
    Kind.COUNT: 0.5,
    Kind.WORD: 0.5,
}
_DECAY: Final = 0.8
"""What a term is still worth each time it was taken before."""

_ECHO_DECAY: Final = 0.5
_ECHO_TURNS: Final = 3
"""What a term is still worth where it was taken within so many turns: there it is mostly the same thing said again."""

_NEIGHBOUR: Final = 1.3
"""How much more a sentence is worth beside one that was taken: together they are understood."""

_LEAST_COST: Final = 30
_LEAST_CONTENT: Final = 2.0
"""Floors, in characters and in weights of terms, so that scraps such as a lone figure do not win by being short."""

_LOOKS_PER_SENTENCE: Final = 6
"""Bounds the work on texts that say the same again and again: beyond it, a worth that was computed earlier is good enough."""


def fill(draft: Draft, sentences: Sequence[Sentence], worths: Sequence[float]) -> None:
    """Takes sentences into the draft, greedily by worth per character, until nothing more fits.

    A sentence's worth sinks with every term of it that is in the draft already, and its cost with the line it would share.
    Sentences without any term are left out.
    """
    _Selection(draft, sentences, worths).run()


class _Selection:
    def __init__(self, draft: Draft, sentences: Sequence[Sentence], worths: Sequence[float]) -> None:
        self._draft = draft
        self._sentences = sentences
        self._worths = worths
        self._terms = _weighted_terms(sentences)
        self._left: dict[str, float] = {}
        self._echoed: set[tuple[str, int]] = set()
        self._index = {sentence.place: index for index, sentence in enumerate(sentences)}
        self._done: set[int] = set()
        self._texts: set[str] = set()
        self._heap = [(-self._gain(index), index) for index, terms in enumerate(self._terms) if terms]
        heapq.heapify(self._heap)

    def run(self) -> None:
        looks = _LOOKS_PER_SENTENCE * len(self._sentences)
        while self._heap:
            _, index = heapq.heappop(self._heap)
            if index in self._done:
                continue
            looks -= 1
            # Gains only sink, but for those that are pushed anew below: one that is still the best now is the best of all.
            gain = self._gain(index)
            if looks > 0 and self._heap and gain < -self._heap[0][0]:
                heapq.heappush(self._heap, (-gain, index))
                continue
            self._take(index)

    def _take(self, index: int) -> None:
        self._done.add(index)
        turn, position = self._sentences[index].place
        opens_turn = not self._draft.has_turn(turn)
        text = self._sentences[index].text
        if text in self._texts or not self._draft.add(turn, position):
            return
        self._texts.add(text)
        for key in self._terms[index]:
            self._left[key] = self._left.get(key, 1.0) * _DECAY
            self._echoed.update((key, near) for near in range(turn - _ECHO_TURNS, turn + _ECHO_TURNS + 1))
        if not opens_turn:
            self._renew((turn, position - 1), (turn, position + 1))
            return
        first = index - position
        last = first
        while last < len(self._sentences) and self._sentences[last].place[0] == turn:
            last += 1
        self._renew(*(sentence.place for sentence in self._sentences[first:last]))

    def _renew(self, *places: tuple[int, int]) -> None:
        """Puts sentences on the heap again whose gain has risen."""
        for place in places:
            index = self._index.get(place)
            if index is not None and index not in self._done and self._terms[index]:
                heapq.heappush(self._heap, (-self._gain(index), index))

    def _gain(self, index: int) -> float:
        """Worth per character, as the draft stands."""
        turn, position = self._sentences[index].place
        terms = self._terms[index]
        new = sum(
            weight * self._left.get(key, 1.0) * (_ECHO_DECAY if (key, turn) in self._echoed else 1.0)
            for key, weight in terms.items()
        )
        beside = self._draft.has(turn, position - 1) or self._draft.has(turn, position + 1)
        novelty = new / (sum(terms.values()) + _LEAST_CONTENT)
        cost = max(_LEAST_COST, self._draft.cost(turn, position))
        return self._worths[index] * novelty * (_NEIGHBOUR if beside else 1.0) / cost


def _weighted_terms(sentences: Sequence[Sentence]) -> list[dict[str, float]]:
    """Each sentence's terms with their weights: by kind, and by rarity in the conversation."""
    frequency = Counter(key for sentence in sentences for key in sentence.terms)
    count = len(sentences)
    rarity = {key: math.log(1 + count / times) for key, times in frequency.items()}
    return [{key: _WEIGHT[kind] * rarity[key] for key, kind in sentence.terms.items()} for sentence in sentences]
