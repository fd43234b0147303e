"""The interface of what jobs get from outside, and have recorded. `headrace.recordings` implements it over the log."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class RecordingKey(NamedTuple):
    """Names what a job got from outside: the name that its worker gave it, and its number among those of that name, from 0.

    Attributes:
        failure: None for an answer. Before there was one, what was asked may have failed: each time has its own number, from 0.
    """

    name: str
    number: int
    failure: int | None = None


class Recorder(Protocol):
    """What one attempt of a job records, and what was recorded before. All of it is called in the event loop."""

    async def find(self, key: RecordingKey, *, reuse: bool) -> bytes | None:
        """What stands for the answer that is asked for, as JSON; None where it has to be asked for outside.

        It gives None when it is ready to record the answer. A replay raises what the job's question raised then.

        Args:
            reuse: whether what an earlier attempt of the job recorded stands for it.

        Raises:
            NotRecorded: nothing was recorded, and it is not to be asked for outside.
            BrokerError: the brokers cannot be used.
        """

    async def write(self, key: RecordingKey, value: bytes) -> None:
        """Records an answer, or a failure, as JSON, and returns when all in-sync replicas have it.

        Raises:
            BrokerError: they did not acknowledge it in time, or cannot be used.
        """
