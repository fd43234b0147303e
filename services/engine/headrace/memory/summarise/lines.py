"""The written form of an extract: a title, a note that it is one, and a line per turn; and how it is read again.

    The title, if there is one
    [Extract: chosen sentences, not reworded]
    2026-01-12 Mara: What she said that day. And some sentences later in the same turn.
    Tomas: The same day, a later turn.
    2026-01-13 Ines: The date stands where it changes.

A line without a date belongs to the day above it. Lines of a summary that was written in another form keep no date, and
stand as points of a list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from headrace.memory.summarise.sentences import split_sentences
from headrace.models import MemoryEntry

EXTRACT_NOTE: Final = "[Extract: chosen sentences, not reworded]"
_POINT: Final = "- "
_SPEAKER_LIMIT: Final = 24
_WRITTEN_LINE: Final = re.compile(r"(?:(?P<date>\d{4}-\d\d-\d\d) )?(?:(?P<speaker>[^:\s][^:]{0,23}): )?(?P<text>.*)", re.DOTALL)
_LIST_MARK: Final = re.compile(r"^(?:(?:[-*•]|#+)\s+)+")
_PARAGRAPHS: Final = re.compile(r"\n[^\S\n]*\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What becomes one line at most.

    Attributes:
        day: number of the run of turns with one date.
        date: as it is written before the first line of a day; empty where none is known.
        speaker: who said it; empty where that is not known.
        condensed: it comes from an earlier summary.
        assistant: an assistant said it.
    """

    day: int
    date: str
    speaker: str
    sentences: tuple[str, ...]
    condensed: bool = False
    assistant: bool = False

    def beginning(self, *, first_of_day: bool) -> str:
        """What its line begins with."""
        date = f"{self.date} " if first_of_day and self.date else ""
        speaker = f"{self.speaker}: " if self.speaker else ""
        return f"{date}{speaker}" if self.date else f"{_POINT}{speaker}"


@dataclass(frozen=True, slots=True)
class _Line:
    date: str
    speaker: str
    text: str


def turns_of(entries: Iterable[MemoryEntry], *, title: str | None = None) -> list[Turn]:
    """The turns of a conversation in their order. Each line of an earlier summary is a turn, and so is each paragraph.

    A text's parts that bear the `title` as their speaker get none: it stands above them already.
    """
    turns: list[Turn] = []
    for entry in entries:
        condensed = entry.role == "summary"
        for line in _lines_of_summary(entry.content) if condensed else _lines_of(entry, title):
            new_day = not turns or turns[-1].date != line.date
            turns.append(
                Turn(
                    day=len(turns) if new_day else turns[-1].day,
                    date=line.date,
                    speaker=line.speaker,
                    sentences=tuple(split_sentences(line.text)),
                    condensed=condensed,
                    assistant=entry.role == "assistant",
                )
            )
    return turns


def _lines_of(entry: MemoryEntry, title: str | None) -> Iterator[_Line]:
    name = entry.name or ("" if entry.role == "tool" else entry.role)
    speaker = "" if name == title else " ".join(name.replace(":", " ").split())[:_SPEAKER_LIMIT].rstrip()
    date = entry.at.date().isoformat()
    return (_Line(date, speaker, text) for text in _PARAGRAPHS.split(entry.content) if text.strip())


def _lines_of_summary(content: str) -> Iterator[_Line]:
    lines = [line.strip() for line in content.splitlines() if line.strip()]
    ours = EXTRACT_NOTE in lines[:2]
    # Headings go: the new summary has its own, and would bury them in its lines.
    body = lines[lines.index(EXTRACT_NOTE) + 1 :] if ours else [line for line in lines if not line.startswith("#")] or lines
    date = ""
    for line in body:
        found = _WRITTEN_LINE.fullmatch(_LIST_MARK.sub("", line))
        if found is None or not found["text"].strip():
            continue
        # Only in this module's own form does a line without a date belong to the day above it.
        date = found["date"] or (date if ours and not line.startswith(_POINT) else "")
        yield _Line(date, found["speaker"] or "", found["text"])


class Draft:
    """A summary as it grows, sentence by sentence, up to `limit` characters. Its length is exact at every moment."""

    def __init__(self, turns: Sequence[Turn], *, title: str | None, limit: int) -> None:
        self._turns = turns
        self._limit = limit
        self._head = _head(title, limit)
        self._chosen: dict[int, set[int]] = {}
        self._days: set[int] = set()
        self.length = len("\n".join(self._head))

    def cost(self, turn: int, position: int) -> int:
        """Characters by which the summary grows with this sentence, its line's beginning included."""
        length = 1 + len(self._turns[turn].sentences[position])
        if turn in self._chosen:
            return length
        return length + len(self._turns[turn].beginning(first_of_day=self._turns[turn].day not in self._days))

    def has(self, turn: int, position: int) -> bool:
        """Whether the sentence was taken."""
        return position in self._chosen.get(turn, ())

    def has_turn(self, turn: int) -> bool:
        """Whether a sentence of the turn was taken."""
        return turn in self._chosen

    def add(self, turn: int, position: int) -> bool:
        """Takes the sentence if it fits, and says whether it did."""
        cost = self.cost(turn, position) - (0 if self.length else 1)
        if self.length + cost > self._limit:
            return False
        self._chosen.setdefault(turn, set()).add(position)
        self._days.add(self._turns[turn].day)
        self.length += cost
        return True

    def text(self) -> str:
        """The summary; empty when no sentence was taken."""
        if not self._chosen:
            return ""
        lines = list(self._head)
        day: int | None = None
        for index in sorted(self._chosen):
            turn = self._turns[index]
            sentences = " ".join(turn.sentences[position] for position in sorted(self._chosen[index]))
            lines.append(turn.beginning(first_of_day=turn.day != day) + sentences)
            day = turn.day
        return "\n".join(lines)


def _head(title: str | None, limit: int) -> list[str]:
    """Title and note, as far as they leave most of the room to what they stand above."""
    heading = " ".join((title or "").split())
    for head in ([heading, EXTRACT_NOTE], [EXTRACT_NOTE]):
        lines = [line for line in head if line]
        if 3 * sum(map(len, lines)) <= limit:
            return lines
    return []
