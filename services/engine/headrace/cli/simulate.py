"""`headrace simulate`: real engines in virtual time, while everything goes wrong that a seed draws."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.common import base_settings, errors_shown

if TYPE_CHECKING:
    from headrace.testing.simulation.seeds import Result

_SHOWN = 5


def simulate_command(
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds to run.")] = 20,
    first: Annotated[int, typer.Option(min=0, help="The first of them.")] = 0,
    seed: Annotated[int | None, typer.Option(min=0, help="Run this seed alone, and tell all that is wrong.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="How many to run at a time.")] = os.cpu_count() or 1,
) -> None:
    """Run engines in a simulation, and check what headrace promises; exits with 1 where that is broken."""
    # Here, and not for every command: it needs all of an engine.
    from headrace.testing.simulation.seeds import run_seeds

    with errors_shown():
        base_settings()  # a wrong setting is told before the processes of the runs are started
    wanted = range(first, first + seeds) if seed is None else range(seed, seed + 1)
    faults: Counter[str] = Counter()
    broken: list[int] = []
    jobs = attempts = after_thaw = 0
    virtual = 0.0
    began = time.monotonic()
    for result in run_seeds(wanted, processes):
        report = result.report
        typer.echo(_line(result))
        if report is None or report.violations:
            broken.append(result.seed)
            _tell(result, every=seed is not None)
        if report is not None:
            faults.update({str(kind): count for kind, count in report.faults.items()})
            jobs, attempts = jobs + report.jobs, attempts + report.attempts
            after_thaw, virtual = after_thaw + report.after_thaw, virtual + report.seconds
    typer.echo(f"\n{len(wanted)} seeds, {virtual / 3600:.1f} h of virtual time in {time.monotonic() - began:.0f} s: ", nl=False)
    typer.echo(f"{jobs} jobs, {attempts} attempts, {after_thaw} steps after a thaw, {len(broken)} seeds with violations")
    _table("faults", faults)
    if broken:
        typer.echo("\nbroken, and run again by:")
        for each in broken:
            typer.echo(f"  headrace simulate --seed {each}")
        raise typer.Exit(1)


def _line(result: Result) -> str:
    report = result.report
    if report is None:
        return f"seed {result.seed}: hangs"
    verdict = "ok" if not report.violations else f"{len(report.violations)} VIOLATIONS"
    return (
        f"seed {result.seed}: {verdict}; {report.seconds / 60:.0f} min in {result.seconds:.1f} s, {report.jobs} jobs, "
        f"{report.attempts} attempts, {report.faults.total()} faults, {report.void.total()} void records, {report.digest}"
    )


def _tell(result: Result, *, every: bool) -> None:
    violations = result.report.violations if result.report else ()
    for violation in violations if every else violations[:_SHOWN]:
        typer.echo(f"  {violation}", err=True)


def _table(title: str, counts: Counter[str]) -> None:
    if counts:
        typer.echo(f"\n{title}:")
        for name, count in counts.most_common():
            typer.echo(f"{count:8d}  {name}")
