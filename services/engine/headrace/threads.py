"""Threads for plain functions that may never return: the end of an event loop waits for none of them, nor does Python's own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from queue import SimpleQueue
from typing import Any, NamedTuple, ParamSpec, TypeVar

ParametersT = ParamSpec("ParametersT")
ResultT = TypeVar("ResultT")


class _Call(NamedTuple):
    future: Future[Any]
    function: Callable[[], Any]


class DaemonThreads(Executor):
    """Runs each function at once, in a thread that is free, or in a new one.

    Those of `ThreadPoolExecutor` are joined when Python ends, daemons or not. These are known to nobody else.

    Args:
        name: the beginning of the threads' names.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        # How many threads wait for a call, or will in a moment, that none is meant for.
        self._idle = 0
        self._made = 0
        self._under_way: set[Future[Any]] = set()
        self._is_shut_down = False

    def submit(
        self, function: Callable[ParametersT, ResultT], /, *args: ParametersT.args, **options: ParametersT.kwargs
    ) -> Future[ResultT]:
        """Runs a function, and gives what it returns or raises. It cannot be cancelled: it runs already.

        Raises:
            RuntimeError: nothing is taken any more, or the system has no further thread.
        """
        future: Future[ResultT] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            if self._is_shut_down:
                raise RuntimeError("no function is run in these threads any more")
            if self._idle:
                self._idle -= 1
            else:
                self._start()
            self._under_way.add(future)
        self._calls.put(_Call(future, lambda: function(*args, **options)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - as an Executor has it
        """Takes nothing more, and gives up what runs: whoever waits for that gets a `CancelledError`, and it goes on.

        It waits for nothing, whatever it is told.
        """
        with self._lock:
            self._is_shut_down = True
            idle, self._idle = self._idle, 0
            given_up, self._under_way = self._under_way, set()
        for _ in range(idle):
            self._calls.put(None)
        for future in given_up:
            future.set_exception(CancelledError())

    def _start(self) -> None:
        self._made += 1
        threading.Thread(target=self._serve, name=f"{self._name}_{self._made}", daemon=True).start()

    def _serve(self) -> None:
        goes_on = True
        while goes_on and (call := self._calls.get()) is not None:
            # One that was given up before it began is not begun.
            result, error = (None, None) if call.future.done() else _outcome(call.function)
            with self._lock:
                is_waited_for = call.future in self._under_way
                self._under_way.discard(call.future)
                goes_on = not self._is_shut_down
                self._idle += goes_on
            if is_waited_for and error is not None:
                call.future.set_exception(error)
            elif is_waited_for:
                call.future.set_result(result)
            # An idle thread holds nothing of its last call.
            del call, result, error


def _outcome(function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return function(), None
    except BaseException as error:
        return None, error
