"""How much of a conversation the extractive summariser keeps, measured against facts that people would look for later.

Each sample conversation comes with a list of its facts, which was made before any summariser existed. A summary of a fifth of
the conversation's tokens recalls a fact when all that the fact consists of stands in one sentence, or in two that follow each
other in one line. Beside the summariser stand the first, the last and random sentences, in the same form and size.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from typing import Any, Final

import orjson
from rich.box import SIMPLE
from rich.table import Table

from headrace.memory import load_conversation
from headrace.memory.summarise.extractive import extract
from headrace.memory.summarise.lines import Draft, turns_of
from headrace.memory.summarise.tokens import CHARACTERS_PER_TOKEN, total_tokens
from headrace.models import MemoryEntry

TUNED_ON: Final = ("second-bakery", "ledger-migration", "choir-tour")
"""The samples that may be looked at, and measured as often as one likes, while the summariser is worked on."""

HELD_OUT: Final = "drowned-village"
"""The sample that was not measured while the summariser was worked on; docs/memory-quality.md says how often it was since."""

SAMPLES: Final = (*TUNED_ON, HELD_OUT)

SHARE: Final = 0.2
"""The part of a conversation's tokens that its summary may take."""

RANDOM_SEEDS: Final = range(20)
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A fact of a conversation.

    Attributes:
        groups: each has to be found, by one of its alternatives.
        decision: the matter it is a decision on; None if it is none.
        final: it is the last decision on that matter.
    """

    id: str
    statement: str
    groups: tuple[re.Pattern[str], ...]
    decision: str | None
    final: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """A conversation and its facts."""

    title: str
    entries: tuple[MemoryEntry, ...]
    facts: tuple[Fact, ...]

    @property
    def token_budget(self) -> int:
        return int(total_tokens(self.entries) * SHARE)


def load_sample(name: str) -> Sample:
    """One of the conversations that ship with headrace, with its facts."""
    folder = files("headrace") / "samples"
    document = orjson.loads((folder / f"{name}.conversation.json").read_bytes())
    conversation = load_conversation(document)
    entries = tuple(
        MemoryEntry(
            user_id=conversation.user_id,
            conversation_id=conversation.conversation_id,
            id=entry.id or f"turn-{number}",
            role=entry.role,
            name=entry.name,
            content=entry.content,
            at=entry.at,
        )
        for number, entry in enumerate(conversation.entries, start=1)
    )
    facts = orjson.loads((folder / f"{name}.facts.json").read_bytes())["facts"]
    return Sample(document["title"], entries, tuple(map(_fact, facts)))


def _fact(raw: Mapping[str, Any]) -> Fact:
    return Fact(
        id=raw["id"],
        statement=raw["statement"],
        groups=tuple(_whole_words(alternatives) for alternatives in raw["match"]),
        decision=raw.get("decision"),
        final=raw.get("final", False),
    )


def _whole_words(alternatives: Iterable[str]) -> re.Pattern[str]:
    return re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, alternatives)) + r")(?!\w)", re.IGNORECASE)


def recalled(facts: Iterable[Fact], summary: str) -> set[str]:
    """The ids of the facts that the summary states."""
    passages = list(_passages(summary))
    return {fact.id for fact in facts if any(all(group.search(passage) for group in fact.groups) for passage in passages)}


def _passages(summary: str) -> Iterator[str]:
    """Each sentence, and each two that follow each other in a line. A line is a turn: lines never join."""
    for line in summary.splitlines():
        sentences = _SENTENCE_END.split(line)
        yield from sentences
        yield from (f"{sentence} {following}" for sentence, following in pairwise(sentences))


def measure_memory(names: Sequence[str] = SAMPLES) -> dict[str, Any]:
    """Measures the extractive summariser on the sample conversations.

    Returns:
        `recall` and `baseline` as means over the conversations, `ratio` as the smallest of theirs, and under `conversations` the
        figures of each. All recalls are parts of 1.
    """
    conversations = {name: _measure(load_sample(name), held_out=name == HELD_OUT) for name in names}
    return {
        "recall": _mean([each["recall"] for each in conversations.values()]),
        "baseline": _mean([each["baseline"] for each in conversations.values()]),
        "ratio": min(each["ratio"] for each in conversations.values()),
        "conversations": conversations,
    }


def _measure(sample: Sample, *, held_out: bool) -> dict[str, Any]:
    summary = extract(sample.entries, title=sample.title, token_budget=sample.token_budget)
    kept = recalled(sample.facts, summary)
    recall = len(kept) / len(sample.facts)
    baselines = _baselines(sample)
    baseline = max(baselines.values())
    finals = {fact.decision: fact.id in kept for fact in sample.facts if fact.final}
    return {
        "recall": recall,
        **baselines,
        "baseline": baseline,
        "ratio": round(recall / baseline, 3),
        "decisions_survived": sum(finals.values()),
        "decisions": len(finals),
        "decisions_lost": sorted(str(matter) for matter, survived in finals.items() if not survived),
        "facts": len(sample.facts),
        "turns": len(sample.entries),
        "tokens": total_tokens(sample.entries),
        "token_budget": sample.token_budget,
        "held_out": held_out,
    }


def _baselines(sample: Sample) -> dict[str, float]:
    """Recall of the first, the last and random sentences. Whatever still fits is taken, so that none wastes its room."""
    turns = turns_of(sample.entries)
    places = [(number, position) for number, turn in enumerate(turns) for position in range(len(turn.sentences))]

    def recall(order: Sequence[tuple[int, int]]) -> float:
        draft = Draft(turns, title=sample.title, limit=sample.token_budget * CHARACTERS_PER_TOKEN)
        for turn, position in order:
            draft.add(turn, position)
        return len(recalled(sample.facts, draft.text())) / len(sample.facts)

    return {
        "first": recall(places),
        "last": recall(places[::-1]),
        "random": _mean([recall(random.Random(seed).sample(places, len(places))) for seed in RANDOM_SEEDS]),
    }


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)


def table_of(measured: Mapping[str, Any]) -> Table:
    """What `measure_memory` found, for people."""
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0), title=f"Facts recalled by summaries of {SHARE:.0%} of the tokens")
    table.add_column("conversation", no_wrap=True)
    for heading in ("facts", "extract", "first", "last", "random", "ratio", "decisions"):
        table.add_column(heading, justify="right")
    for name, figures in measured["conversations"].items():
        table.add_row(
            f"{name} (held out)" if figures["held_out"] else name,
            str(figures["facts"]),
            *(f"{figures[column]:.1%}" for column in ("recall", "first", "last", "random")),
            f"{figures['ratio']:.2f}",
            f"{figures['decisions_survived']}/{figures['decisions']}",
        )
    return table
