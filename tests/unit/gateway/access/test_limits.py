"""How much a principal may do at a time, under a clock that stands still."""

from __future__ import annotations

import asyncio

import pytest

from headrace_gateway.access import Allowance, LimitExceeded, Limits, RateLimited, TooManyInFlight
from support.access import Clock, a_principal
from support.virtual_time import in_virtual_time

ANN, BOB = a_principal("ann"), a_principal("bob")


def limits(clock: Clock, **allowance: float) -> Limits:
    return Limits(Allowance(**{"calls_per_second": 10.0, "burst": 5, "in_flight": 3, "streams": 2, **allowance}), clock=clock)  # type: ignore[arg-type]


def calls(counted: Limits, count: int, principal: object = ANN) -> int:
    """How many of so many calls, one after another, are let in."""
    let_in = 0
    for _ in range(count):
        try:
            counted.enter(principal)  # type: ignore[arg-type]
        except LimitExceeded:
            continue
        counted.leave(principal)  # type: ignore[arg-type]
        let_in += 1
    return let_in


def test_after_a_rest_a_burst_is_let_in_and_then_the_rate() -> None:
    clock = Clock()
    counted = limits(clock)
    assert calls(counted, 20) == 5
    clock.at += 0.1
    assert calls(counted, 20) == 1
    clock.at += 0.35
    assert calls(counted, 20) == 3
    clock.at += 1_000
    assert calls(counted, 20) == 5, "a long rest allows no more than one burst"


def test_in_the_long_run_it_is_the_rate_however_the_calls_come() -> None:
    clock = Clock()
    counted = limits(clock)
    calls(counted, 5)
    let_in = 0
    for _ in range(1_000):
        clock.at += 0.037
        let_in += calls(counted, 3)
    assert 368 <= let_in <= 370, "37 s at 10 a second"


def test_a_refusal_says_when_to_come_again_and_costs_nothing() -> None:
    clock = Clock()
    counted = limits(clock, calls_per_second=0.2, burst=1)
    assert calls(counted, 1) == 1
    for _ in range(50):
        with pytest.raises(RateLimited) as refused:
            counted.enter(ANN)
        assert refused.value.retry_after == 5
    clock.at += 4.9
    assert calls(counted, 1) == 0
    clock.at += 0.1
    assert calls(counted, 1) == 1


def test_calls_at_once_are_bounded_and_a_refused_one_is_not_counted() -> None:
    counted = limits(Clock(), burst=100)
    for _ in range(3):
        counted.enter(ANN)
    for _ in range(3):
        with pytest.raises(TooManyInFlight) as refused:
            counted.enter(ANN)
    assert (refused.value.code, refused.value.retry_after) == ("too_many_in_flight", 1)
    counted.leave(ANN)
    counted.enter(ANN)


def test_streams_are_counted_for_themselves() -> None:
    counted = limits(Clock(), burst=100)
    for _ in range(2):
        counted.enter(ANN, stream=True)
    with pytest.raises(TooManyInFlight, match="streams"):
        counted.enter(ANN, stream=True)
    for _ in range(3):
        counted.enter(ANN)
    counted.leave(ANN, stream=True)
    counted.enter(ANN, stream=True)


def test_one_principal_does_not_use_up_what_another_may() -> None:
    counted = limits(Clock())
    assert calls(counted, 20, ANN) == 5
    assert calls(counted, 20, BOB) == 5
    assert calls(counted, 20, a_principal("ann", tenant="acme")) == 5
    assert calls(counted, 20, a_principal("ann", credential="another key")) == 0, "two keys of one user are one principal"


def test_it_is_known_how_many_calls_would_be_let_in() -> None:
    clock = Clock()
    counted = limits(clock, in_flight=4)
    assert (counted.allows(ANN, 4), counted.allows(ANN, 5)) == (True, False), "so many may be under way"
    assert calls(counted, 2) == 2
    assert (counted.allows(ANN, 3), counted.allows(ANN, 4)) == (True, False), "so many are left of the burst"
    assert counted.allows(BOB, 4)
    clock.at += 0.1
    assert counted.allows(ANN, 4)
    counted.enter(ANN)
    assert (counted.allows(ANN, 3), counted.allows(ANN, 4)) == (True, False)
    assert calls(counted, 4) == 3


def test_memory_is_bounded_by_who_does_something_now() -> None:
    clock = Clock()
    counted = Limits(Allowance(calls_per_second=10.0, burst=5), clock=clock, most=100)
    counted.enter(ANN)
    for number in range(10_000):
        clock.at += 1
        assert calls(counted, 1, a_principal(f"user-{number}")) == 1
    assert len(counted) <= 110
    counted.leave(ANN)


def test_who_is_busy_is_not_forgotten_among_many() -> None:
    clock = Clock()
    counted = Limits(Allowance(calls_per_second=10.0, burst=5), clock=clock, most=10)
    assert calls(counted, 20, ANN) == 5
    for number in range(1_000):
        calls(counted, 1, a_principal(f"user-{number}"))
    assert calls(counted, 20, ANN) == 0, "no time has passed"


async def entered(counted: Limits, order: list[int], number: int) -> None:
    await counted.turn(ANN)
    counted.enter(ANN)
    order.append(number)


@in_virtual_time
async def test_those_who_wait_for_their_turn_are_let_in_at_the_rate_in_their_order() -> None:
    clock = asyncio.get_running_loop().time
    counted = Limits(Allowance(calls_per_second=10.0, burst=5, in_flight=1_000), clock=clock)
    began, order = clock(), list[int]()
    async with asyncio.TaskGroup() as group:
        for number in range(105):
            group.create_task(entered(counted, order, number))
        group.create_task(entered(counted, order, -1)).cancel()
    assert clock() - began == pytest.approx(10.0)
    assert order == list(range(105))


@in_virtual_time
async def test_those_who_wait_for_others_to_end_are_let_in_as_these_do() -> None:
    counted = Limits(Allowance(calls_per_second=1000.0, burst=1000, in_flight=2), clock=asyncio.get_running_loop().time)
    order: list[int] = []
    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(entered(counted, order, number))
        for count in (2, 3, 4, 5):
            await asyncio.sleep(1)
            assert order == list(range(count))
            counted.leave(ANN)
            counted.enter(BOB)
            counted.leave(BOB)
    assert counted.under_way(ANN) == 1


@in_virtual_time
async def test_who_waits_is_not_forgotten() -> None:
    clock = Clock()
    counted = Limits(Allowance(calls_per_second=1.0, burst=1), clock=clock, most=1)
    counted.enter(ANN)
    counted.leave(ANN)
    waiting = asyncio.create_task(counted.turn(ANN))
    await asyncio.sleep(0.5)
    clock.at += 1.0
    for number in range(20):
        calls(counted, 1, a_principal(f"other{number}"))
    counted.enter(ANN)  # before the one that waits
    await asyncio.sleep(1)
    assert not waiting.done()
    clock.at += 1.0
    await waiting
    counted.enter(ANN)
