"""Tables for the terminal whose columns are never squeezed away: what is there to be copied stays whole.

Rich makes all columns of a table narrower when one of them is too wide, those that are not to be wrapped, too.
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
_LEAST_OF_THE_LAST = 12
_WIDE_GAP, _NARROW_GAP = 2, 1


@dataclass(frozen=True, slots=True)
class Row:
    """One entry of a listing.

    Attributes:
        cells: one for each column; others' texts as they are, or a `Text` with a style.
        notes: what stands below, each in a line of its own; of a long one, its beginning and its end.
    """

    cells: Sequence[str | Text]
    notes: Sequence[Text] = ()


@dataclass(slots=True)
class Listing:
    """A title, columns and rows.

    Attributes:
        columns: their names. The last is cut where the terminal is narrow; all others are as wide as what stands in them.
        nothing: what is said in place of a listing without rows.
    """

    title: str
    columns: Sequence[str]
    nothing: str
    rows: list[Row] = field(default_factory=list)

    def print(self, console: Console | None = None) -> None:
        """Prints it. What goes into a pipe or a file, of no set width, is cut nowhere."""
        console = console or Console()
        if not self.rows:
            console.print(Text(self.nothing), soft_wrap=True)
            return
        console.print(Text(self.title, style="italic"), soft_wrap=True)
        for line in self._lines(console.width if is_bounded(console) else None):
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
                shown = cut_in_the_middle(" ".join(note.plain.split()), _MOST_OF_A_NOTE)
                lines.append(Text("  ").append_text(plain(shown, style=str(note.style))))
        return lines


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
