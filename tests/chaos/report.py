"""The table of a chaos run, and its JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from chaos.verdict import Verdict

SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A run and its verdict.

    Attributes:
        command: repeats the plan of its faults.
        remarks: what was seen on the way and is no violation by itself.
    """

    command: str
    date: str
    seed: int
    minutes: float
    settings: Mapping[str, str]
    verdict: Verdict
    remarks: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.verdict.passed}

    def show(self, console: Console) -> None:
        verdict = self.verdict
        table = Table(title=f"{self.command}, {self.date}", title_justify="left", show_header=False)
        rows: list[tuple[str, object]] = [
            ("accepted", verdict.accepted),
            ("in the log without an acknowledgement", verdict.unconfirmed),
            ("duplicates", verdict.duplicates),
            ("ended", f"{verdict.ended} ({', '.join(f'{count} {name}' for name, count in verdict.statuses.items())})"),
            ("of these longer than 40 s", verdict.long_jobs),
            ("lost", len(verdict.lost)),
            ("overlaps", len(verdict.overlaps)),
            ("ticks after a thaw", verdict.after_thaw),
            ("out of order", len(verdict.out_of_order)),
            ("finished and begun again", len(verdict.finished_again)),
            ("one request done twice", len(verdict.done_twice)),
            ("failed without being poison", len(verdict.failed)),
            ("poison", verdict.poison),
            ("poison that is no dead letter", len(verdict.poison_kept)),
            ("processes that misbehaved", len(verdict.misbehaved)),
            ("executed more than once", f"{verdict.executed_again} jobs, {sum(verdict.repeated.values())} times"),
            *((f"  {reason}", count) for reason, count in verdict.repeated.items()),
            ("longest stall", f"{verdict.longest_stall:.1f} s"),
            ("faults", sum(verdict.faults.values())),
            *((f"  {kind}", count) for kind, count in verdict.faults.items()),
            ("freezes over 40 s", verdict.long_freezes),
        ]
        for name, value in rows:
            table.add_row(name, str(value))
        console.print(table)
        for title, lines in (
            ("LOST", verdict.lost),
            ("OVERLAP", verdict.overlaps),
            ("OUT OF ORDER", verdict.out_of_order),
            ("FINISHED AND BEGUN AGAIN", verdict.finished_again),
            ("ONE REQUEST DONE TWICE", verdict.done_twice),
            ("FAILED WITHOUT BEING POISON", verdict.failed),
            ("POISON THAT IS NO DEAD LETTER", verdict.poison_kept),
            ("MISBEHAVED", verdict.misbehaved),
            ("TOO LITTLE HAPPENED", verdict.shortfalls),
            ("remark", self.remarks),
        ):
            for line in lines[:SHOWN]:
                console.print(f"{title}: {line}", markup=False, highlight=False)
            if len(lines) > SHOWN:
                console.print(f"{title}: and {len(lines) - SHOWN} more", markup=False, highlight=False)
        console.print("passed" if verdict.passed else "FAILED")
