"""How much a sentence is worth keeping, from its signs.

Two logistic models stand side by side: how likely a sentence states a fact that somebody would want back, and how likely it is
where a matter was decided. Their weights were fitted on conversations whose facts people would look for had been listed, then
rounded. In the second model every matter counts the same, however often its last decision was said again: what is said once, in
passing, is what is lost most easily. The signs are few, and each is a claim about how people talk, so that they carry over to
other subjects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from headrace.memory.summarise.features import Sentence

_FACT_BASE: Final = -2.65
_FACT: Final[Mapping[str, float]] = {
    # What it names: figures, identifiers, people, days; new ones above all; subjects that come up again.
    "figures": 0.8,
    "identifiers": 0.65,
    "names": 0.65,
    "calendar": 0.15,
    "new": 0.4,
    "recurring": 0.5,
    "single": -0.1,
    # What it is for.
    "closed": 0.4,
    "decided": 0.8,
    "committed": 0.15,
    "concluding": 1.0,
    "negated": 0.8,
    "imperative": 0.75,
    # Others take it up, or it takes up what others said.
    "echoed": 0.6,
    "echoing": 0.65,
    # Talk: questions, advice, stories, the joke at the end, long letters, what needs the sentence before it.
    "question": -0.6,
    "addressed": -0.7,
    "past": -0.7,
    "last_of_turn": -0.85,
    "long_turn": -0.5,
    "pointing_back": -0.4,
    # An assistant mostly repeats and proposes.
    "assistant": -1.0,
    "length": 0.45,
    "commas": 0.25,
}
_DECISION_BASE: Final = -5.7
_DECISION: Final[Mapping[str, float]] = {
    "closed": 1.15,
    "decided": 0.55,
    "concluding": 1.65,
    "beside_closed": 0.55,
    "states": 0.85,
    "negated": 0.7,
    "imperative": 0.35,
    "echoed": 0.35,
    "echoing": 1.4,
    # It is about something that was talked of before. A later decision on it takes its place.
    "known": 0.7,
    "revisiting": 0.3,
    "last_mention": 0.65,
    "superseded": -0.4,
    # Its speaker says yes to something, or others then say yes to it.
    "assenting": 0.45,
    "assented": 0.6,
    "single": -0.7,
    "commas": 0.95,
    "question": -0.3,
    "past": -0.55,
    "last_of_turn": -1.2,
    "long_turn": -0.4,
    "pointing_back": -0.75,
    "assistant": -1.4,
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
