"""What one attempt of a job gets from outside: asked for once, recorded, and handed back as JSON has it."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Coroutine
from threading import Lock
from typing import Any, Protocol, TypeVar

import orjson

from headrace.codec import encode_any
from headrace.core.numbering import Numbering
from headrace.errors import RecordingRefused
from headrace.fields import LONGEST_IDENTITY
from headrace.models import PAYLOAD_LIMIT_BYTES
from headrace.ports import Recorder, RecordingKey
from headrace.recordings.failures import encode_failure, is_recorded

ResultT = TypeVar("ResultT")


class WaitFor(Protocol):
    """Has a coroutine run in the event loop, and blocks its thread until that has ended."""

    def __call__(self, work: Coroutine[Any, Any, ResultT]) -> ResultT: ...


class RecordedCalls:
    """The calls of one attempt. They may come from several threads.

    Args:
        recorder: of the attempt; None where nothing is recorded: then everything is asked for outside.
    """

    def __init__(self, recorder: Recorder | None) -> None:
        self._recorder = recorder
        self._lock = Lock()
        self._numbering: Numbering[str] = Numbering()
        self._failures: Counter[RecordingKey] = Counter()

    async def recorded(self, name: str, fn: Callable[[], Any], *, reuse: bool) -> Any:
        """See `JobContext.recorded`."""
        key, recorder = self._take(name), self._recorder
        try:
            found = None if recorder is None else await recorder.find(key, reuse=reuse)
            if found is None:
                try:
                    given = fn()
                    found = _encoded(name, await given if inspect.isawaitable(given) else given)
                except Exception as error:
                    if recorder is not None and is_recorded(error):
                        await recorder.write(self._failed(key), encode_failure(error))
                    raise
                if recorder is not None:
                    await recorder.write(key, found)
        except BaseException:
            self._give_back(key)
            raise
        return orjson.loads(found)

    def recorded_from_thread(self, name: str, fn: Callable[[], Any], wait_for: WaitFor, *, reuse: bool) -> Any:
        """See `JobContext.recorded_from_thread`."""
        key, recorder = self._take(name), self._recorder
        try:
            found = None if recorder is None else wait_for(recorder.find(key, reuse=reuse))
            if found is None:
                try:
                    found = _encoded(name, fn())
                except Exception as error:
                    if recorder is not None and is_recorded(error):
                        wait_for(recorder.write(self._failed(key), encode_failure(error)))
                    raise
                if recorder is not None:
                    wait_for(recorder.write(key, found))
        except BaseException:
            self._give_back(key)
            raise
        return orjson.loads(found)

    def _take(self, name: str) -> RecordingKey:
        if not 0 < len(name) <= LONGEST_IDENTITY:
            raise ValueError(f"recorded({name!r:.80}): give it a name of 1 to {LONGEST_IDENTITY} characters.")
        with self._lock:
            return RecordingKey(name, self._numbering.take(name))

    def _failed(self, key: RecordingKey) -> RecordingKey:
        """The key of a failure that comes before the answer of that key."""
        with self._lock:
            number = self._failures[key]
            self._failures[key] += 1
        return key._replace(failure=number)

    def _give_back(self, key: RecordingKey) -> None:
        with self._lock:
            self._numbering.give_back(key.name, key.number)


def _encoded(name: str, value: Any) -> bytes:
    try:
        encoded = encode_any(value)
    except Exception as error:  # it may be of a class of the user's own, which can raise anything
        kind, raised = type.__repr__(type(value)), type.__repr__(type(error))
        raise RecordingRefused(f"recorded({name!r}): {kind} is no JSON ({raised}); give its text, or its fields.") from error
    if len(encoded) > PAYLOAD_LIMIT_BYTES:
        raise RecordingRefused(
            f"recorded({name!r}): it takes {len(encoded)} bytes as JSON, and the limit is {PAYLOAD_LIMIT_BYTES}: "
            "record the part that the job needs."
        )
    return encoded
