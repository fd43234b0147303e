"""What one attempt of a job gets from outside: asked for once, recorded, and handed back as JSON has it."""

from __future__ import annotations

import inspect
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
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
from headrace.recordings.names import UNSURE, keyed, within
from headrace.recordings.order import CallOrder

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")


class WaitFor(Protocol):
    """Has a coroutine run in the event loop, and blocks its thread until that has ended."""

    def __call__(self, work: Coroutine[Any, Any, ResultT]) -> ResultT: ...


class _Call:
    """A call that was made.

    Attributes:
        name: of the worker, for messages.
        counted: the name under which it is counted: with its key, and within which other call it is.
        number: among those of that name.
    """

    __slots__ = ("counted", "has_key", "name", "number", "order", "outer")

    def __init__(self, name: str, counted: str, number: int, order: CallOrder, outer: _Call | None, *, has_key: bool) -> None:
        self.name = name
        self.counted = counted
        self.number = number
        self.order = order
        self.outer = outer
        self.has_key = has_key

    @property
    def is_sure(self) -> bool:
        """Whether another attempt gives the same call this number, as far as is known now."""
        return self.has_key or (self.order.is_sure(self.counted) and (self.outer is None or self.outer.is_sure))

    @property
    def key(self) -> RecordingKey:
        """By which it is recorded, and looked for."""
        return RecordingKey(self.counted if self.is_sure else self.counted + UNSURE, self.number)


_within: ContextVar[tuple[object, _Call] | None] = ContextVar("recorded_within", default=None)
_warned: set[str] = set()


class RecordedCalls:
    """The calls of one attempt. They may come from several threads.

    Args:
        recorder: of the attempt; None where nothing is recorded: then everything is asked for outside.
    """

    def __init__(self, recorder: Recorder | None) -> None:
        self._recorder = recorder
        self._lock = Lock()
        self._numbering: Numbering[str] = Numbering()
        self._failures: Counter[tuple[str, int]] = Counter()
        self._orders: defaultdict[tuple[str, int] | None, CallOrder] = defaultdict(CallOrder)

    def recorded(self, name: str, fn: Callable[[], Any], *, key: Any, reuse: bool) -> Coroutine[Any, Any, Any]:
        """See `JobContext.recorded`. The number is taken here: whatever waits for the answer may begin in any order."""
        return self._answer(self._called(name, key), fn, reuse=reuse)

    async def _answer(self, call: _Call, fn: Callable[[], Any], *, reuse: bool) -> Any:
        recorder = self._recorder
        with self._under_way(call, reuse=reuse):
            found = None if recorder is None else await recorder.find(call.key, reuse=reuse)
            if found is None:
                try:
                    with self._inside(call):
                        given = fn()
                        found = _encoded(call.name, await given if inspect.isawaitable(given) else given)
                except Exception as error:
                    if recorder is not None and is_recorded(error):
                        await recorder.write(self._failed(call), encode_failure(error))
                    raise
                if recorder is not None:
                    await recorder.write(call.key, found)
        return orjson.loads(found)

    def recorded_from_thread(self, name: str, fn: Callable[[], Any], wait_for: WaitFor, *, key: Any, reuse: bool) -> Any:
        """See `JobContext.recorded_from_thread`."""
        if inspect.iscoroutinefunction(fn):
            raise _asks_in_a_coroutine(name)
        call, recorder = self._called(name, key), self._recorder
        with self._under_way(call, reuse=reuse):
            found = None if recorder is None else wait_for(recorder.find(call.key, reuse=reuse))
            if found is None:
                try:
                    with self._inside(call):
                        given = fn()
                        found = None if inspect.isawaitable(given) else _encoded(name, given)
                except Exception as error:
                    if recorder is not None and is_recorded(error):
                        wait_for(recorder.write(self._failed(call), encode_failure(error)))
                    raise
                if found is None:
                    _close_unawaited(given)
                    raise _asks_in_a_coroutine(name)  # a fault of the code, and no answer: a replay of other code gets along
                if recorder is not None:
                    wait_for(recorder.write(call.key, found))
        return orjson.loads(found)

    def _called(self, name: str, key: Any) -> _Call:
        if not 0 < len(name) <= LONGEST_IDENTITY:
            raise ValueError(f"recorded({name!r:.80}): give it a name of 1 to {LONGEST_IDENTITY} characters.")
        counted = name if key is None else _keyed(name, key)
        inside = _within.get()
        outer = inside[1] if inside is not None and inside[0] is self else None
        if outer is not None:
            counted = within(RecordingKey(outer.counted, outer.number), counted)
        with self._lock:
            order = self._orders[None if outer is None else (outer.counted, outer.number)]
            order.call(counted)
            return _Call(name, counted, self._numbering.take(counted), order, outer, has_key=key is not None)

    @contextmanager
    def _under_way(self, call: _Call, *, reuse: bool) -> Iterator[None]:
        """From a call's begin to its end. Its number is given back where it comes to nothing."""
        if reuse and not call.is_sure and self._recorder is not None:
            _warn(call.name)
        with self._lock:
            call.order.begin()
        try:
            yield
        except BaseException:
            with self._lock:
                self._numbering.give_back(call.counted, call.number)
            raise
        finally:
            with self._lock:
                call.order.end()

    @contextmanager
    def _inside(self, call: _Call) -> Iterator[None]:
        """While `fn` of a call runs: what that records is counted by itself."""
        before = _within.get()
        _within.set((self, call))
        try:
            yield
        finally:
            _within.set(before)

    def _failed(self, call: _Call) -> RecordingKey:
        """The key of a failure that comes before the answer of that call."""
        with self._lock:
            number = self._failures[call.counted, call.number]
            self._failures[call.counted, call.number] += 1
        return call.key._replace(failure=number)


def check_function(name: str, fn: Any) -> None:
    """Looks whether there is something to be called, and closes a coroutine that was given in its place.

    Raises:
        TypeError: there is not; the message says what to write instead.
    """
    if callable(fn):
        return
    _close_unawaited(fn)
    given = "a coroutine" if inspect.iscoroutine(fn) else type.__repr__(type(fn))
    raise TypeError(
        f"recorded({name!r:.80}) was given {given} in place of a function: a replay could not leave it undone. Give a function "
        f"without arguments that makes it, as in recorded({name!r:.80}, lambda: ask(question))."
    )


def _close_unawaited(given: Any) -> None:
    """Has Python not complain, beside the error that follows, of a coroutine that nobody awaits."""
    if inspect.iscoroutine(given):
        given.close()


def _asks_in_a_coroutine(name: str) -> TypeError:
    return TypeError(
        f"recorded_from_thread({name!r:.80}) was given a coroutine function, which a thread cannot await: give a plain function, "
        f"or make `run` an `async def` and await recorded({name!r:.80}, ...)."
    )


def _warn(name: str) -> None:
    """Says once of each name that its calls will be paid for again."""
    if name not in _warned:
        _warned.add(name)
        logger.warning(
            "recorded(%r, reuse=True): its calls begin in an order that may be another in the next attempt, which asks for them "
            "again, since it cannot tell one from the other: give each a key= of its own.",
            name,
        )


def _keyed(name: str, key: Any) -> str:
    try:
        return keyed(name, key)
    except Exception as error:  # it may be of a class of the user's own, which can raise anything
        raise ValueError(f"recorded({name!r:.80}): its key is no JSON: give it a text, or a list of texts.") from error


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
