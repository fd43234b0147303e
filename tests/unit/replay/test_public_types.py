"""What `headrace.replay` gives: also the types of what it hands out, and the errors that it raises."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator

import pytest

from headrace import replay, replay_errors
from headrace.errors import HeadraceError

EXPORTED = {name: value for name, value in vars(replay).items() if not name.startswith("_") and not inspect.ismodule(value)}
NOT_HANDED_OUT = {
    # What parts of a replay ask each other for.
    replay.LogHistory: {"trail", "all_recordings", "own_recordings", "memory_records"},
    replay.StreamReplay: {"reruns", "rerun"},
}


def parts_of(hint: object) -> Iterator[object]:
    yield hint
    for part in typing.get_args(hint):
        yield from parts_of(part)


def handed_out(value: object) -> Iterator[object]:
    """The types of what a public class has and returns, or a public function."""
    if inspect.isfunction(value):
        yield typing.get_type_hints(value).get("return")
    elif inspect.isclass(value):
        hidden = NOT_HANDED_OUT.get(value, set())
        own = {name: each for name, each in vars(value).items() if not name.startswith("_") and name not in hidden}
        yield from (
            hint for name, hint in typing.get_type_hints(value).items() if not name.startswith("_") and name not in hidden
        )
        for each in own.values():
            called = each.fget if isinstance(each, property) else getattr(each, "__func__", each)
            if inspect.isfunction(called):
                yield typing.get_type_hints(called).get("return")


@pytest.mark.parametrize("name", sorted(EXPORTED))
def test_a_type_that_is_handed_out_can_be_imported_beside_it(name: str) -> None:
    found = [part for hint in handed_out(EXPORTED[name]) for part in parts_of(hint) if inspect.isclass(part)]
    own = [each for each in found if each.__module__.startswith("headrace.replay")]
    assert [each.__qualname__ for each in own if each not in EXPORTED.values()] == []


def test_what_a_replay_raises_can_be_imported_there() -> None:
    own = [each for each in vars(replay_errors).values() if inspect.isclass(each) and each.__module__ == replay_errors.__name__]
    assert len(own) > 3 and all(issubclass(each, HeadraceError) for each in own)
    assert [each.__name__ for each in own if each not in EXPORTED.values()] == []
