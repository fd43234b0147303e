"""What others wrote is written again, compared, and told, however deep it is nested."""

from __future__ import annotations

import sys
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.codec import _encode_nested, encode_foreign, is_readable
from headrace.core.comparison import is_same_json
from headrace.core.ownership import Version
from headrace.replay.inspection.steps import Change, changes_between
from headrace.replay.rerunning.differences import differences
from headrace.views.job_rows import LEVELS_TOLD, listed, row_of, whole

SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


def nested(levels: int, innermost: Any = 0, *, lists: bool = False) -> Any:
    value = innermost
    for _ in range(levels):
        value = [value] if lists else {"in": value}
    return value


@given(VALUES)
def test_what_is_written_without_calls_inside_of_calls_is_the_same(value: Any) -> None:
    assert _encode_nested(value) == orjson.dumps(value)


@pytest.mark.parametrize("lists", [False, True], ids=["objects", "lists"])
@pytest.mark.parametrize("levels", [254, 255, 1024, 100_000])
def test_any_depth_is_written(levels: int, lists: bool) -> None:
    begin, end = (b"[", b"]") if lists else (b'{"in":', b"}")
    written = encode_foreign(nested(levels, lists=lists))
    assert written == begin * levels + b"0" + end * levels
    assert is_readable(written) is (levels <= 1024)


def test_much_that_is_not_deep_can_be_read() -> None:
    assert is_readable(encode_foreign([[]] * 5_000))


def test_what_is_no_json_is_refused() -> None:
    for value in (object(), nested(300, object())):
        with pytest.raises(TypeError):
            encode_foreign(value)


@pytest.mark.parametrize("lists", [False, True], ids=["objects", "lists"])
def test_what_is_nested_deep_is_compared(lists: bool) -> None:
    levels = 2 * sys.getrecursionlimit()
    one, same, other = (nested(levels, innermost, lists=lists) for innermost in (1, 1.0, 2))
    assert is_same_json(one, same)
    assert not is_same_json(one, other)
    [difference] = differences(one, other)
    assert (difference.path.count("."), difference.recorded, difference.replayed) == (levels - 1, 1, 2)
    [change] = changes_between({"args": one}, {"args": other})
    if lists:
        assert change.path == "args"
    else:
        assert change == Change("args" + ".in" * levels, 1, 2)


def job(**fields: Any) -> dict[str, Any]:
    head = {"id": "a", "tenant": "default", "workerName": "w", "createdAt": "2026-01-31T09:15:00.000Z", "status": "failed"}
    return {**head, "args": {}, "ctx": {"userId": "u"}, **fields}


@pytest.mark.parametrize("beside", ["", "x" * 5_000], ids=["short", "long"])
@pytest.mark.parametrize("name", ["args", "ctx", "result", "unknown"])
def test_what_is_nested_too_deep_is_left_out_of_answers(name: str, beside: str) -> None:
    """It must not take the rest of the job, and of the page, with it."""
    for levels, is_told in ((LEVELS_TOLD - 1, True), (LEVELS_TOLD, False), (1_000, False)):
        raw = job(**{name: {"userId": "u", "deep": nested(levels)}}, note=beside)
        row = row_of(orjson.loads(encode_foreign(raw)), Version(1, 1, 1), 0, None)
        shown = whole(row.body, row.arguments, row.details)
        if is_told:
            assert shown == raw
            continue
        expected = {**raw, f"{name}Omitted": True}
        del expected[name]
        assert shown == (expected if name != "ctx" else {**expected, "ctx": {"userId": "u"}})
        assert is_same_json(orjson.loads(orjson.dumps(listed(row.body))).get("note"), beside)
