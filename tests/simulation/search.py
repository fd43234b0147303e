"""Looks for the seeds that find out broken engines, and keeps them in `found_by.json`.

Seeds do other things whenever the engine or the simulation changes. `cd tests && python -m simulation.search` looks again for the
breaks that their seeds find out no more, so that the tests do not have to.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Mapping
from concurrent.futures import as_completed
from pathlib import Path
from typing import NamedTuple

import pytest

from headrace.testing.simulation.seeds import process_pool, run_seed
from simulation.breaks import BREAKS

SEEDS = 200
KNOWN = Path(__file__).with_name("found_by.json")
FAILURE = "nothing fails by itself"
# A broken engine may do something again and again without any time passing.
_HANG_SECONDS = 20
# All breaks are tried with a few seeds before any of them is with many.
_PASSES = (range(5), range(5, 25), range(25, 75), range(75, SEEDS))


class Found(NamedTuple):
    """Which seed finds a break, and by what. The seed is None where none does."""

    seed: int | None
    violation: str


def known_seeds() -> Mapping[str, int]:
    """The seeds that found each break when they were last looked for, by its name."""
    known: dict[str, int] = json.loads(KNOWN.read_text(encoding="utf-8"))
    return known


def find(name: str, seeds: range = range(SEEDS)) -> Found:
    """The seed that finds a break: the one that did so last, or the first of these. To be called in a process of its own."""
    [broken] = [each for each in BREAKS if each.name == name]
    known = [known_seeds()[name]] if name in known_seeds() and seeds.start == 0 else []
    with pytest.MonkeyPatch.context() as patch:
        broken.apply(patch)
        for seed in itertools.chain(known, seeds):
            report = run_seed(seed, _HANG_SECONDS, to_the_end=False).report
            # An engine that fails of its break, as by a call that this does not take, says nothing of the rule.
            broken_promises = [each for each in report.violations if each.promise != FAILURE] if report is not None else []
            if broken_promises:
                return Found(seed, str(broken_promises[0]))
    return Found(None, "")


def main(wanted: list[str]) -> None:
    """Looks for the breaks of these names, or for all: those first that few seeds find. Those that none finds are named last."""
    processes = int(os.environ.get("PROCESSES", os.cpu_count() or 1))
    left = [each for each in BREAKS if not wanted or each.name in wanted]
    with process_pool(processes) as executor:
        for seeds in _PASSES:
            looking = {executor.submit(find, each.name, seeds): each for each in left}
            for future in as_completed(looking):
                broken = looking[future]
                if (error := future.exception()) is not None:
                    _say(f"{broken.rule}, {broken.name}: is no engine any more: {error!r}")
                    continue
                result = future.result()
                if result.seed is not None:
                    _say(f"{broken.rule}, {broken.name}: {result.seed}, {result.violation[:160]}")
                    _keep(broken.name, result.seed)
                    left.remove(broken)
    _say(f"not found: {', '.join(each.name for each in left) or 'none'}")


def _keep(name: str, seed: int) -> None:
    """At once, so that nothing is lost where the search is ended."""
    found = {**known_seeds(), name: seed}
    kept = {each.name: found[each.name] for each in BREAKS if each.name in found}
    # Others read it meanwhile.
    written = KNOWN.with_suffix(f".{os.getpid()}")
    written.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    written.replace(KNOWN)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
