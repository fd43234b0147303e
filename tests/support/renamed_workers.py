"""The code of `support.replay_workers` after a change: its worker has another name."""

from __future__ import annotations

from support import replay_workers


class Counting(replay_workers.Count):
    """The same under a new name."""

    name = "counting"
