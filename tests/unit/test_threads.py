"""Threads that nobody waits for."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest

from headrace.threads import DaemonThreads
from support.processes import wait_until


@pytest.fixture
def threads() -> Iterator[DaemonThreads]:
    made = DaemonThreads("testing")
    yield made
    made.shutdown()


def named() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("testing")}


async def test_a_function_gives_what_it_returns_or_raises(threads: DaemonThreads) -> None:
    loop = asyncio.get_running_loop()
    thread = await loop.run_in_executor(threads, threading.current_thread)
    assert thread.daemon and thread is not threading.current_thread()
    assert threads.submit(dict, [("a", 1)], b=2).result() == {"a": 1, "b": 2}
    with pytest.raises(SystemExit):
        threads.submit(lambda: (_ for _ in ()).throw(SystemExit(3)).__next__()).result()


def test_each_runs_at_once_and_threads_are_used_again(threads: DaemonThreads) -> None:
    all_here = threading.Barrier(20, timeout=20)
    for _ in range(3):
        for future in [threads.submit(all_here.wait) for _ in range(20)]:
            future.result()
    assert len(named()) == 20


def test_what_runs_is_given_up_and_goes_on() -> None:
    threads, begun, gate, ended = DaemonThreads("testing"), threading.Event(), threading.Event(), threading.Event()

    def blocks() -> None:
        begun.set()
        gate.wait(60)
        ended.set()

    threads.submit(int).result()
    future = threads.submit(blocks)
    assert begun.wait(20)
    threads.shutdown()
    with pytest.raises(CancelledError):
        future.result(timeout=0)
    assert not ended.is_set()
    with pytest.raises(RuntimeError, match="any more"):
        threads.submit(int)
    gate.set()
    assert ended.wait(20)
    wait_until(lambda: not named(), "its threads have ended")


def test_what_has_not_begun_by_then_does_not_begin() -> None:
    threads, begun = DaemonThreads("testing"), threading.Event()
    threads.submit(int).result()
    interval = sys.getswitchinterval()
    try:
        sys.setswitchinterval(20)  # nobody else has a turn meanwhile
        future = threads.submit(begun.set)
        threads.shutdown()
    finally:
        sys.setswitchinterval(interval)
    with pytest.raises(CancelledError):
        future.result(timeout=0)
    wait_until(lambda: not named(), "its threads have ended")
    assert not begun.is_set()


class Large:
    """What a function may return, or take."""


def test_an_idle_thread_holds_nothing_of_its_last_call(threads: DaemonThreads) -> None:
    large = Large()
    gone = weakref.ref(large)
    assert threads.submit(lambda taken: taken, large).result() is large
    del large
    wait_until(lambda: _is_gone(gone), "what it returned is gone")
    assert len(named()) == 1


def _is_gone(reference: weakref.ref[Any]) -> bool:
    gc.collect()
    return reference() is None
