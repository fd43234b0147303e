"""What goes wrong in a simulation, and which of it comes together: each theme puts some of the rules under pressure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class FaultKind(StrEnum):
    """What goes wrong in a run. Each seed has some of them."""

    ACKNOWLEDGEMENT_LOST = "acknowledgement lost"
    ACKNOWLEDGEMENT_LATE = "acknowledgement late"
    APPEND_REFUSED = "append refused"
    APPEND_DELAYED = "append delayed"
    LANDS_LATE = "landed long after"
    CUT_OFF = "process cut off"
    GROUP_AWAY = "cut off from its groups"
    EVICTED = "evicted, not told"
    NEVER_TOLD = "evicted, never told"
    CLAIM_DISPUTED = "evicted with a claim under way"
    REQUESTS_REFUSED = "requests refused"
    READS_STALL = "reads stall"
    READS_LATE = "one process reads late"
    CRASH = "process killed"
    CRASH_AFTER_WRITES = "killed when its writes had come late"
    REPEAT_LATE = "janitor's repeat landed late"
    FREEZE_SHORT = "frozen for less than the term"
    FREEZE_LONG = "frozen for longer than the term"
    FROZEN_SENDING = "frozen with writes under way"
    FROZEN_UNHEARD = "frozen with acknowledgements under way"
    LATE_THEN_CUT = "acknowledged late, and then cut off"
    SUSPENDED = "machine suspended"
    CLOCK_AHEAD = "wall clock jumped ahead"
    CLOCK_BACK = "wall clock jumped back"
    BROKER_CLOCK = "broker's clock jumped"
    COMPACTION = "compaction"
    JOIN = "engine joins"
    LEAVE = "engine leaves"
    STARTS_UNHEARD = "handed over with starts under way"
    ALL_STOP = "all engines stop"
    KILLED_IN_TIME = "killed by its supervisor when its lease was over"
    POISONED = "killed by a job of its own"


_CLOCKS = frozenset({FaultKind.CLOCK_AHEAD, FaultKind.CLOCK_BACK})

DRAWN = frozenset(FaultKind) - {FaultKind.KILLED_IN_TIME, FaultKind.POISONED}
"""Those that come by themselves; the others follow from what else happens."""

# How often each is drawn, where most are 1.
WEIGHTS: Mapping[FaultKind, float] = {
    FaultKind.CRASH: 2.0,
    FaultKind.FREEZE_LONG: 2.0,
    FaultKind.LANDS_LATE: 2.0,
    FaultKind.CUT_OFF: 1.5,
    FaultKind.CLAIM_DISPUTED: 1.5,
    FaultKind.COMPACTION: 0.7,
    FaultKind.REPEAT_LATE: 0.7,
    FaultKind.REQUESTS_REFUSED: 0.5,
    FaultKind.NEVER_TOLD: 0.5,
    FaultKind.ALL_STOP: 0.3,
}


class Theme(StrEnum):
    """What a small run is about."""

    FREEZES = "freezes"
    LAPSES = "lapses"
    WRITES = "writes"
    CLAIMS = "claims"
    HAND_OVERS = "hand-overs"
    CLOCKS = "clocks"
    COMPACTION = "compaction"
    SUPERVISORS = "supervisors"
    EVERYTHING = "everything"


THEMES: Mapping[Theme, frozenset[FaultKind]] = {
    # What a process does that wakes up when all is over (F1, F3, H2, H5).
    Theme.FREEZES: frozenset(
        {FaultKind.FREEZE_SHORT, FaultKind.FREEZE_LONG, FaultKind.FROZEN_SENDING, FaultKind.FROZEN_UNHEARD, FaultKind.COMPACTION}
    ),
    # Leases that are over while their holders run (H1, H5, O1).
    Theme.LAPSES: frozenset(
        {
            FaultKind.CUT_OFF,
            FaultKind.LATE_THEN_CUT,
            FaultKind.ACKNOWLEDGEMENT_LATE,
            FaultKind.APPEND_DELAYED,
            FaultKind.SUSPENDED,
            FaultKind.FREEZE_SHORT,
            FaultKind.GROUP_AWAY,
        }
    ),
    # What nobody knows of what was written (F2, H6, K1, K3).
    Theme.WRITES: frozenset(
        {
            FaultKind.ACKNOWLEDGEMENT_LOST,
            FaultKind.ACKNOWLEDGEMENT_LATE,
            FaultKind.APPEND_REFUSED,
            FaultKind.APPEND_DELAYED,
            FaultKind.LANDS_LATE,
            FaultKind.CRASH,
            FaultKind.CRASH_AFTER_WRITES,
        }
    ),
    # Many want the same partition (C1 to C4, H4).
    Theme.CLAIMS: frozenset(
        {
            FaultKind.CLAIM_DISPUTED,
            FaultKind.EVICTED,
            FaultKind.NEVER_TOLD,
            FaultKind.GROUP_AWAY,
            FaultKind.READS_STALL,
            FaultKind.READS_LATE,
            FaultKind.LANDS_LATE,
            FaultKind.JOIN,
            FaultKind.LEAVE,
        }
    ),
    # Partitions that change hands in order, again and again (K2, R1).
    Theme.HAND_OVERS: frozenset(
        {
            FaultKind.JOIN,
            FaultKind.LEAVE,
            FaultKind.STARTS_UNHEARD,
            FaultKind.ALL_STOP,
            FaultKind.CRASH,
            FaultKind.CRASH_AFTER_WRITES,
            FaultKind.READS_STALL,
            FaultKind.APPEND_DELAYED,
            FaultKind.ACKNOWLEDGEMENT_LATE,
        }
    ),
    # Times that are not what they seem (H1, O1).
    Theme.CLOCKS: frozenset(
        {
            FaultKind.BROKER_CLOCK,
            FaultKind.SUSPENDED,
            FaultKind.CUT_OFF,
            FaultKind.LATE_THEN_CUT,
            FaultKind.READS_STALL,
            FaultKind.CLAIM_DISPUTED,
            FaultKind.LEAVE,
            *_CLOCKS,
        }
    ),
    # What stands over what counts (F1, J1 to J3).
    Theme.COMPACTION: frozenset(
        {
            FaultKind.COMPACTION,
            FaultKind.FROZEN_SENDING,
            FaultKind.LANDS_LATE,
            FaultKind.REPEAT_LATE,
            FaultKind.CLAIM_DISPUTED,
            FaultKind.CRASH,
            FaultKind.LEAVE,
        }
    ),
    # Who is dead, and who says so (H3, R2, X1).
    Theme.SUPERVISORS: frozenset({FaultKind.CRASH, FaultKind.FREEZE_LONG, FaultKind.CUT_OFF, FaultKind.SUSPENDED}),
    Theme.EVERYTHING: DRAWN,
}
