"""`make chaos MINUTES=5`: breaks a real cluster for some minutes, and judges what became of the jobs."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from chaos.report import Report
from chaos.runner import BROKER_TIMES, PARTITIONS, Options, Outcome, run
from headrace.errors import HeadraceError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
DEFAULT_JSON = Path(".headrace") / "chaos.json"


def main() -> int:
    """The exit code: 0 when every promise was kept and enough happened to say so, 1 when not."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--minutes", type=_minutes, default=5.0, help="how long there are faults")
    parser.add_argument("--seed", type=int, help="draws the faults and the load; a new one when left out")
    parser.add_argument("--engines", type=int, default=3, choices=(2, 3, 4), help="how many there are at the start")
    parser.add_argument("--json", type=Path, default=DEFAULT_JSON, help=f"where the outcome goes [{DEFAULT_JSON}]")
    parser.add_argument("--keep", type=Path, help="a new folder in which the ledger, and what engines print, are left")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    command = f"make chaos MINUTES={given.minutes:g} SEED={seed}"
    console = Console(highlight=False, markup=False)
    console.print(command)
    with ExitStack() as ends:
        if given.keep is not None:
            if given.keep.exists() and any(given.keep.iterdir()):
                parser.error(f"{given.keep} is not empty: name a new folder")
            folder = given.keep.absolute()
        else:
            folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="headrace-chaos-", ignore_cleanup_errors=True)))
        options = Options(minutes=given.minutes, seed=seed, folder=folder, engines=given.engines)
        try:
            outcome = asyncio.run(_until_told(options, console))
        except HeadraceError as error:
            console.print(f"Error: {error}")
            return EXIT_USAGE
        except (KeyboardInterrupt, asyncio.CancelledError):
            console.print("Broken off; nothing of it is left.")
            return EXIT_INTERRUPTED
    report = Report(
        command=command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=seed,
        minutes=given.minutes,
        settings={**BROKER_TIMES, "engines": str(given.engines), "partitions": str(PARTITIONS)},
        verdict=outcome.verdict,
        remarks=outcome.remarks,
    )
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(report.as_json(), indent=2) + "\n")
    report.show(console)
    console.print(f"as JSON: {given.json}")
    return 0 if outcome.verdict.passed else EXIT_FAILED


async def _until_told(options: Options, console: Console) -> Outcome:
    """The run, which SIGTERM and SIGHUP break off as Ctrl-C does."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    return await run(options, console.print)


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0.5 <= minutes <= 24 * 60:
        raise argparse.ArgumentTypeError("give from half a minute to a day")
    return minutes


if __name__ == "__main__":
    sys.exit(main())
