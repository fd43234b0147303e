"""Tables for the terminal whose columns are never squeezed away: what is there to be copied stays whole.

Rich makes all columns of a table narrower when one of them is too wide, those that are not to be wrapped, too.

One rule holds for what any command prints: a terminal, or a width that is set by `COLUMNS`, bounds its lines; what goes into a
pipe or a file is neither cut nor wrapped, so that whatever is looked for stands in one line.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from headrace.cli.common import plain
from headrace.core.texts import cut_in_the_middle

_MOST_OF_A_NOTE = 300
_LEAST_OF_THE_LAST = 8
_WIDE_GAP, _NARROW_GAP = 2, 1
# As many columns as no line of a pipe has.
_NO_WIDTH = 1 << 24


@dataclass(frozen=True, slots=True)
class Row:
    """One entry of a listing.

    Attributes:
        cells: one for each column; others' texts as they are, or a `Text` with a style.
        notes: what stands below, each in a line of its own; of a long one at a terminal, its beginning and its end.
        is_verbatim: whether the blanks of its notes are to be kept; else each run of blanks and line ends is shown as one.
    """

    cells: Sequence[str | Text]
    notes: Sequence[Text] = ()
    is_verbatim: bool = False


@dataclass(slots=True)
class Listing:
    """A title, columns and rows.

    Attributes:
        columns: their names. The last is cut where the terminal is narrow; all others are as wide as what stands in them.
        nothing: what is said in place of a listing without rows.
        summary: what stands below the title, each in a line of its own.
    """

    title: str
    columns: Sequence[str]
    nothing: str
    rows: list[Row] = field(default_factory=list)
    summary: Sequence[Text] = ()

    def print(self, console: Console | None = None, *, full: bool = False) -> None:
        """Prints it. What goes into a pipe or a file, of no set width, is cut nowhere.

        Args:
            full: nothing is cut at a terminal either: its lines are broken where it ends.
        """
        console = console or Console()
        if not self.rows:
            console.print(Text(self.nothing), soft_wrap=True)
            return
        console.print(Text(self.title, style="italic"), soft_wrap=True)
        for line in (*self.summary, *self._lines(None if full or not is_bounded(console) else console.width)):
            console.print(line, soft_wrap=True)

    def _lines(self, width: int | None) -> list[Text]:
        head = [Text(name, style="bold") for name in self.columns]
        body = [[_in_one_line(cell) for cell in row.cells] for row in self.rows]
        *widths, last = (max(cell.cell_len for cell in column) for column in zip(head, *body, strict=True))
        gap = _WIDE_GAP if width is None or sum(widths) + last + _WIDE_GAP * len(widths) <= width else _NARROW_GAP
        if width is not None:
            last = min(last, max(_LEAST_OF_THE_LAST, width - sum(widths) - gap * len(widths)))
        lines = [_line(head, widths, last, gap)]
        for cells, row in zip(body, self.rows, strict=True):
            lines.append(_line(cells, widths, last, gap))
            for note in row.notes:
                whole = note.plain if row.is_verbatim else " ".join(note.plain.split())
                shown = whole if width is None else cut_in_the_middle(whole, _MOST_OF_A_NOTE)
                lines.append(Text("  ").append_text(plain(shown, style=str(note.style))))
        return lines


def output_console(*, stderr: bool = False) -> Console:
    """A console for standard output, or standard error, that wraps nothing which goes into a pipe or a file."""
    console = Console(stderr=stderr)
    if not is_bounded(console):
        console.width = _NO_WIDTH
    return console


def is_bounded(console: Console) -> bool:
    """Whether it has a width: a pipe or a file has none."""
    return console.is_terminal or bool(os.environ.get("COLUMNS"))


def _in_one_line(cell: str | Text) -> Text:
    if isinstance(cell, str):
        return plain(" ".join(cell.split()))
    return plain(" ".join(cell.plain.split()), style=str(cell.style))


def _line(cells: Sequence[Text], widths: Sequence[int], last: int, gap: int) -> Text:
    line = Text()
    for cell, width in zip(cells[:-1], widths, strict=True):
        line.append_text(cell).append(" " * (width - cell_len(cell.plain) + gap))
    final = cells[-1].copy()
    final.truncate(last, overflow="ellipsis")
    return line.append_text(final)
