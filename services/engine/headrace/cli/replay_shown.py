"""What the terminal shows of a replayed job: what was recorded beside what comes of it now, and what it would have done."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from headrace.cli.common import plain
from headrace.cli.listing import Listing, Row, is_bounded
from headrace.cli.replay_changes import Changes
from headrace.codec import encode_foreign
from headrace.core.comparison import Comparison, Outcome, Verdict
from headrace.core.status import JobStatus
from headrace.core.texts import cut_in_the_middle
from headrace.replay.rerunning.differences import MISSING, differences
from headrace.replay.rerunning.effects import Effects, MemoryAppended, MemoryCompacted
from headrace.replay.rerunning.rerun import Rerun

_VERDICT_STYLES: Final = {
    Verdict.SAME: "green",
    Verdict.NEWLY_FIXED: "green",
    Verdict.DIFFERENT: "yellow",
    Verdict.NEWLY_FAILING: "red",
    Verdict.ARGUMENTS_REFUSED: "red",
    Verdict.NOT_COMPARABLE: "dim",
}
_VERDICT_TEXTS: Final = {
    Verdict.SAME: "Same.",
    Verdict.NEWLY_FIXED: "Newly fixed: it failed, and completes now.",
    Verdict.DIFFERENT: "Different.",
    Verdict.NEWLY_FAILING: "Newly failing: it completed, and fails now.",
    Verdict.ARGUMENTS_REFUSED: "Its arguments are no longer accepted.",
    Verdict.NOT_COMPARABLE: "Not comparable: what was recorded is not what the code made of it.",
}
_CHANGED_TEXTS: Final = {
    Verdict.SAME: "With other arguments it is the same.",
    Verdict.NEWLY_FIXED: "With other arguments it completes.",
    Verdict.DIFFERENT: "With other arguments it is different.",
    Verdict.NEWLY_FAILING: "With other arguments it fails.",
    Verdict.ARGUMENTS_REFUSED: "The other arguments are not accepted.",
}
"""What is not to be taken for a verdict on today's code."""
_OTHERWISE: Final = ("cyan", "yellow")
"""Styles of what is neither better nor worse."""
_WIDEST_CELL: Final = 60
_NARROWEST_CELL: Final = 12
_BESIDE_CELLS: Final = 12
"""What the names of the lines and the gaps take."""
_LONGEST_VALUE: Final = 200
_MOST_DIFFERENCES: Final = 20
_MOST_EFFECTS: Final = 20


def show(rerun: Rerun, console: Console, changes: Changes | None = None) -> None:
    """Prints all of it.

    Args:
        changes: what was changed of the job before.
    """
    widest = _widest_cell(console)
    _table(rerun, widest).print(console)
    for text in _cut_in_table(rerun, widest):
        console.print(text, soft_wrap=True)
    for place in () if changes is None else changes.places:
        change = f"Changed {place.path}: {_written(place.recorded)} -> {_written(place.replayed)}"
        console.print(plain(cut_in_the_middle(change, _LONGEST_VALUE)), soft_wrap=True)
    verdict = rerun.comparison.verdict
    texts = {**_VERDICT_TEXTS, **(_CHANGED_TEXTS if changes is not None and changes.counts else {})}
    line = plain(_why(rerun.comparison) or texts[verdict], style=_VERDICT_STYLES[verdict])
    if rerun.comparison.slower:
        line.append(" It takes more than twice as long.", style="yellow")
    console.print(line, soft_wrap=True)
    for text in (*_different_places(rerun), *_effects(rerun.effects), *_traceback(rerun)):
        console.print(text, soft_wrap=True)


def _why(comparison: Comparison) -> str:
    return f"Not comparable: {comparison.reason}." if comparison.reason else ""


def _widest_cell(console: Console) -> int:
    """How wide what was recorded and what was replayed may each be, so that they stand side by side."""
    return min(_WIDEST_CELL, max(_NARROWEST_CELL, (console.width - _BESIDE_CELLS) // 2)) if is_bounded(console) else _WIDEST_CELL


def _cut_in_table(rerun: Rerun, widest: int) -> Iterator[Text]:
    """In full, what the table has no room for."""
    results = {"recorded": _result(rerun.recorded), "replayed": _result(rerun.replayed)}
    if len(set(results.values())) == 1:
        results = {"both times": results["recorded"]}
    for when, result in results.items():
        if cell_len(result) > widest:
            yield plain(f"Result, {when}: {result}")
    # An error of today has its traceback.
    if cell_len(error := _error(rerun.recorded)) > widest and error != _error(rerun.replayed):
        yield plain(f"Error, recorded: {error}")


def _table(rerun: Rerun, widest: int) -> Listing:
    recorded, replayed = rerun.recorded, rerun.replayed
    title = plain(f"Job {rerun.job.id} of {rerun.job.record['workerName']}, attempt {rerun.attempt}").plain
    styles = _styles(rerun)
    rows = [
        _row("status", (_status(recorded), _status(replayed)), widest, styles),
        _row("result", (_result(recorded), _result(replayed)), widest, styles),
        _row("error", (_error(recorded), _error(replayed)), widest, styles),
        _row("duration", (_duration(recorded), _duration(replayed)), widest, _OTHERWISE, differ=rerun.comparison.slower),
    ]
    return Listing(title, ("", "recorded", "replayed"), "", rows)


def _styles(rerun: Rerun) -> tuple[str, str]:
    """Of what was recorded and of what was replayed, where they differ: green is only what is better."""
    then, now = None if rerun.recorded is None else rerun.recorded.status, rerun.replayed.status
    if (then, now) == (JobStatus.FAILED, JobStatus.COMPLETED):
        return "red", "green"
    if (then, now) == (JobStatus.COMPLETED, JobStatus.FAILED):
        return "green", "red"
    return _OTHERWISE


def _row(name: str, texts: tuple[str, str], widest: int, styles: tuple[str, str], *, differ: bool | None = None) -> Row:
    """A line of the table. What differs is told before it is cut."""
    if differ is None:
        differ = texts[0] != texts[1]
    cells = [Text(text, style=style if differ else "") for text, style in zip(texts, styles, strict=True)]
    for cell in cells:
        cell.truncate(widest, overflow="ellipsis")
    return Row((name, *cells))


def _status(outcome: Outcome | None) -> str:
    return "not ended" if outcome is None else outcome.status.value


def _result(outcome: Outcome | None) -> str:
    return "-" if outcome is None or outcome.result is None else _written(outcome.result)


def _error(outcome: Outcome | None) -> str:
    return "-" if outcome is None or outcome.error_type is None else f"{outcome.error_type}: {outcome.error_message or ''}"


def _duration(outcome: Outcome | None) -> str:
    return "-" if outcome is None or outcome.seconds is None else f"{outcome.seconds:.3f} s"


def _different_places(rerun: Rerun) -> Iterator[Text]:
    """Where results or errors differ."""
    recorded, replayed = rerun.recorded, rerun.replayed
    if recorded is None or rerun.comparison.verdict is not Verdict.DIFFERENT:
        return
    if (before := _error(recorded)) != (now := _error(replayed)):
        yield _difference("error", before, now)
    found = list(islice(differences(recorded.result, replayed.result), _MOST_DIFFERENCES + 1))
    for each in found[:_MOST_DIFFERENCES]:
        yield _difference(f"result.{each.path}" if each.path else "result", _written(each.recorded), _written(each.replayed))
    if len(found) > _MOST_DIFFERENCES:
        yield Text("  and more", style="dim")


def _difference(place: str, recorded: str, replayed: str) -> Text:
    text, (then, now) = plain(f"  {place}: "), _OTHERWISE
    text.append_text(plain(cut_in_the_middle(recorded, _LONGEST_VALUE), style=then)).append(" -> ")
    return text.append_text(plain(cut_in_the_middle(replayed, _LONGEST_VALUE), style=now))


def _effects(effects: Effects) -> Iterator[Text]:
    told = list(_told(effects))
    if not told:
        return
    yield Text("It would have, and in this replay did not:", style="italic")
    for what in told[:_MOST_EFFECTS]:
        yield plain(f"  {cut_in_the_middle(' '.join(what.split()), _LONGEST_VALUE)}")
    if len(told) > _MOST_EFFECTS:
        yield Text(f"  and {len(told) - _MOST_EFFECTS} more", style="dim")


def _told(effects: Effects) -> Iterator[str]:
    for job in effects.enqueued:
        yield f"enqueued {job.id} for {job.worker_name}: {_written(job.args)}"
    for write in effects.memory:
        yield _memory(write)
    for said in effects.progress:
        yield f"said how far it is: {said.fraction:.0%} {said.text or ''}"
    for key in effects.asked_outside:
        yield f"been handed {key.name!r}, number {key.number}, which it did not record: it was asked for outside"
    for key in effects.not_recorded:
        yield f"been handed {key.name!r}, number {key.number}, which it did not record: it was refused"
    for where in effects.memory_unknown:
        yield f"read the memory of {where.user_id}/{where.conversation_id}, which is not in the export"


def _memory(write: MemoryAppended | MemoryCompacted) -> str:
    _, user_id, conversation_id = write.conversation
    where = f"to the memory of {user_id}/{conversation_id}"
    if isinstance(write, MemoryAppended):
        return f"added {len(write.entries)} entries {where}: {write.entries[0][1]}"
    return f"added a summary in place of {len(write.supersedes)} entries {where}: {write.summary}"


def _traceback(rerun: Rerun) -> Iterator[Text]:
    if rerun.error is not None:
        whole = rerun.error.get("traceback") or f"{rerun.error['type']}: {rerun.error['message']}"
        yield plain(whole.rstrip())


def _written(value: Any) -> str:
    return "nothing" if value is MISSING else encode_foreign(value).decode()
