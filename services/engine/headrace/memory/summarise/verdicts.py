"""Puts together what people write as several sentences and mean as one: `switch to v7. final answer on ids.`

By itself neither half is understood, and each looks like little: one names what is chosen, the other says that it is chosen.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from headrace.memory.summarise.vocabulary import CLOSED, NEGATED

_FRAGMENT: Final = 25
"""Characters up to which a sentence is too short to stand by itself."""

_CLOSING: Final = 65
"""Characters up to which a sentence that closes a matter is taken for a comment on a fragment before it."""

_JOINED: Final = 160
"""Characters that what is joined may take, so that a row of fragments does not become one long text."""


def join_verdicts(sentences: Iterable[str]) -> tuple[str, ...]:
    """The sentences of a turn, in their order; short ones that close or rule out something are one with the neighbour.

    A question is never joined to what answers it.
    """
    joined: list[str] = []
    for sentence in sentences:
        if joined and _belong_together(joined[-1], sentence):
            joined[-1] = f"{joined[-1]} {sentence}"
        else:
            joined.append(sentence)
    return tuple(joined)


def _belong_together(before: str, sentence: str) -> bool:
    if len(before) + len(sentence) >= _JOINED or before.endswith("?"):
        return False
    if _is_verdict(before) or _is_verdict(sentence):
        return True
    return len(before) <= _FRAGMENT and len(sentence) <= _CLOSING and CLOSED.search(sentence.lower()) is not None


def _is_verdict(sentence: str) -> bool:
    text = sentence.lower()
    fits = len(sentence) <= _FRAGMENT and not sentence.endswith("?")
    return fits and (CLOSED.search(text) or NEGATED.search(text)) is not None
