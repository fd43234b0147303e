"""How much a sentence is worth keeping, from its signs.

Two logistic models stand side by side: how likely a sentence states a fact that somebody would want back, and how likely it is
where a matter was decided. Their weights were fitted on conversations whose facts people would look for had been listed, each
checked on a conversation that it had not seen, then rounded; signs whose weights did not agree from one to the other
were left out. They are few, and each is a claim about how people talk, so that they carry over to other subjects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from headrace.memory.summarise.features import Sentence

_FACT_BASE: Final = -2.2
_FACT: Final[Mapping[str, float]] = {
    # What it names: figures, identifiers, people, days; new ones above all; subjects that come up again.
    "figures": 0.6,
    "identifiers": 0.55,
    "names": 0.5,
    "calendar": 0.3,
    "new": 0.4,
    "recurring": 0.5,
    "single": -0.2,
    # What it is for.
    "closed": 0.6,
    "decided": 0.8,
    "committed": 0.2,
    "concluding": 1.0,
    "negated": 0.7,
    "imperative": 0.55,
    # Others take it up, or it takes up what others said.
    "echoed": 0.7,
    "echoing": 0.65,
    # Talk: questions, advice, stories, the joke at the end, long letters, what needs the sentence before it.
    "question": -0.35,
    "addressed": -0.6,
    "past": -0.5,
    "last_of_turn": -0.6,
    "long_turn": -0.8,
    "pointing_back": -0.45,
    # An assistant mostly repeats and proposes.
    "assistant": -0.9,
    "length": 0.3,
    "commas": 0.2,
}
_DECISION_BASE: Final = -4.2
_DECISION: Final[Mapping[str, float]] = {
    "closed": 0.8,
    "decided": 0.65,
    "concluding": 1.0,
    "beside_closed": 0.65,
    "states": 0.25,
    "negated": 0.35,
    "imperative": 0.3,
    "echoed": 1.1,
    "echoing": 1.1,
    # It is about something that was talked of before. A later decision on it takes its place.
    "known": 0.7,
    "last_mention": 0.3,
    "superseded": -0.4,
    "single": -0.7,
    "commas": 0.5,
    "question": -0.35,
    "past": -0.55,
    "last_of_turn": -0.7,
    "long_turn": -0.9,
    "pointing_back": -0.45,
    "assistant": -0.5,
}
_DECISION_SHARE: Final = 3.0
"""How much more a decision counts than a fact."""

_CONDENSED_SHARE: Final = 2.0
"""How much more a line counts that was chosen once already: it is all that is left of many."""


def worth(sentence: Sentence, *, condensed: bool) -> float:
    """What the sentence is worth by itself; above 0."""
    fact = _likelihood(_FACT_BASE, _FACT, sentence.signs)
    decision = _likelihood(_DECISION_BASE, _DECISION, sentence.signs)
    return (fact + _DECISION_SHARE * decision) * (_CONDENSED_SHARE if condensed else 1.0)


def _likelihood(base: float, weights: Mapping[str, float], signs: Mapping[str, float]) -> float:
    return 1 / (1 + math.exp(-base - sum(weight * signs[sign] for sign, weight in weights.items())))
