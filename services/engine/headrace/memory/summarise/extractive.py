"""A summary without a model: the sentences of a conversation that say most, as they were said.

No library fits the whole task. `sumy`, the one that is kept up, weighs sentences by the words they share with others, so that
the one place where a price, a day or a decision stands counts little; its tokenizer wants data that is downloaded at first
use, and it pins setuptools. scikit-learn is too heavy for a default. What a library does well here is to know the forms of one
word: `snowballstemmer`, pure Python and without dependencies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from headrace.memory.summarise.base import Summary
from headrace.memory.summarise.features import Sentence, read_sentences
from headrace.memory.summarise.lines import Draft, Turn, turns_of
from headrace.memory.summarise.scoring import worth
from headrace.memory.summarise.selection import fill
from headrace.memory.summarise.sentences import tighten
from headrace.memory.summarise.tokens import CHARACTERS_PER_TOKEN, total_tokens
from headrace.memory.summarise.verdicts import join_verdicts
from headrace.models import MemoryEntry

_CUT: Final = "…"


class ExtractiveSummariser:
    """Chooses sentences by what they say: figures, names, days, and above all what was decided last. Needs no network.

    The words by which it knows a decision are English. In other languages figures, names, repetition and what others take up
    carry it. It is deterministic, and its work grows with the length of the input and no faster.
    """

    name = "extractive"

    async def summarise(self, texts: Sequence[MemoryEntry], *, title: str | None, token_budget: int) -> Summary:
        """An extract of `texts` in their order, with a line per turn; it says in one line that it is one.

        It takes at most `token_budget` tokens and always fewer than the texts. It is empty where nothing can be that short.
        """
        return Summary(await asyncio.to_thread(extract, texts, title=title, token_budget=token_budget))


def extract(texts: Sequence[MemoryEntry], *, title: str | None, token_budget: int) -> str:
    """What `ExtractiveSummariser` answers, computed where it is called."""
    limit = CHARACTERS_PER_TOKEN * min(token_budget, total_tokens(texts) - 1)
    if limit <= 0:
        return ""
    turns = [_prepared(turn) for turn in turns_of(texts, title=title)]
    sentences = read_sentences(turns)
    worths = [worth(sentence, condensed=turns[sentence.place[0]].condensed) for sentence in sentences]
    draft = Draft(turns, title=title, limit=limit)
    fill(draft, sentences, worths)
    if not draft.text():
        # No sentence has a term, or none fits: what is said in the commonest words is better than nothing.
        for index in sorted(range(len(sentences)), key=worths.__getitem__, reverse=True):
            draft.add(*sentences[index].place)
    return draft.text() or _one_cut(turns, sentences, worths, limit)


def _prepared(turn: Turn) -> Turn:
    return replace(turn, sentences=join_verdicts(map(tighten, turn.sentences)))


def _one_cut(turns: Sequence[Turn], sentences: Sequence[Sentence], worths: Sequence[float], limit: int) -> str:
    """The best sentence, cut, where not even a short one fits whole."""
    if not sentences:
        return ""
    best = max(range(len(sentences)), key=worths.__getitem__)
    turn, position = sentences[best].place
    text = turns[turn].sentences[position]
    return text if len(text) <= limit else text[: limit - 1].rstrip() + _CUT
