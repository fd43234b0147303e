"""Which faults a run does, and when: drawn from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

from chaos.verdict import KINDS, LONG_FREEZE_SECONDS, Minimums

FIRST_SECONDS = 6.0
# More than are needed: one that finds nothing to act on is left out.
SPARE = 1.25


@dataclass(frozen=True, slots=True)
class Step:
    """A fault to come.

    Attributes:
        at: seconds after the load began.
        seconds: how long it lasts, where it lasts: a freeze, or a broker's absence.
    """

    at: float
    kind: str
    seconds: float


def plan(seed: int, minutes: float) -> list[Step]:
    """The faults of a run, in the order of time: enough of each kind for the minimums, evenly spread over its minutes."""
    chance = random.Random(seed)
    wanted = Minimums.of(minutes)
    # Only who is frozen with its supervisor is sure to be there at the end of a long freeze.
    long_freezes = ["freeze both"] * (wanted.freezes + (wanted.freezes > 1))
    others = [kind for kind in KINDS if kind != "freeze both"]
    chance.shuffle(others)
    count = max(round(wanted.faults * SPARE), wanted.kinds + len(long_freezes) - 1)
    kinds = [others[number % len(others)] for number in range(max(count - len(long_freezes), wanted.kinds - 1))]
    # A long freeze takes part of the run: the first of them begins early, and they are spread out.
    spacing = max(1, len(kinds) // len(long_freezes))
    for number, kind in enumerate(long_freezes):
        kinds.insert(min(len(kinds), 1 + number * (spacing + 1)), kind)
    interval = (minutes * 60 - 2 * FIRST_SECONDS) / len(kinds)
    return [
        Step(round(FIRST_SECONDS + (number + chance.uniform(0, 0.6)) * interval, 2), kind, _duration(kind, chance))
        for number, kind in enumerate(kinds)
    ]


def _duration(kind: str, chance: random.Random) -> float:
    match kind:
        case "freeze both":
            return round(chance.uniform(LONG_FREEZE_SECONDS + 1, LONG_FREEZE_SECONDS + 12), 1)
        case "freeze engine" | "freeze supervisor":
            # Some are over before anybody can notice, some before a lease is, some after.
            return round(chance.choice((chance.uniform(1, 5), chance.uniform(8, 20), chance.uniform(26, 35))), 1)
        case "kill broker" | "restart broker":
            return round(chance.uniform(1, 10), 1)
        case "kill supervisor" | "kill engine":
            return round(chance.uniform(0, 5), 1)  # until another is started, where nobody else does
        case _:
            return 0.0
