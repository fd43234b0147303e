"""What differs between two results, place by place; and recorded jobs with other arguments."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.comparison import is_same_json
from headrace.errors import ConfigurationError
from headrace.replay.rerunning.differences import MISSING, Difference, differences, with_changes
from support.histories import recorded_job

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON)
def test_values_that_are_not_the_same_differ_somewhere_and_others_nowhere(recorded: Any, replayed: Any) -> None:
    found = list(differences(recorded, replayed))
    assert (found == []) is is_same_json(recorded, replayed)
    assert len({each.path for each in found}) == len(found)


def test_each_innermost_place_is_told() -> None:
    recorded = {"total": 3, "lines": [{"n": 1}, {"n": 2}], "gone": None}
    replayed = {"total": 3.0, "lines": [{"n": 1}, {"n": 5}, "new"], "added": True}
    assert list(differences(recorded, replayed)) == [
        Difference("lines.1.n", 2, 5),
        Difference("lines.2", MISSING, "new"),
        Difference("gone", None, MISSING),
        Difference("added", MISSING, True),
    ]
    assert list(differences(1, "1")) == [Difference("", 1, "1")]


def test_arguments_are_changed_and_the_recorded_job_is_not() -> None:
    job = recorded_job("does", {"pages": ["a", "b"], "deep": {"x": 1}})
    changed = with_changes(job, {"args.pages.1": 5, "args.pages.2": "c", "args.deep.y.z": None, "ctx.userId": "bob"})
    assert changed.record["args"] == {"pages": ["a", 5, "c"], "deep": {"x": 1, "y": {"z": None}}}
    assert changed.record["ctx"] == {"userId": "bob"}
    assert (changed.id, changed.snapshot) == (job.id, job.snapshot)
    assert job.record["args"] == {"pages": ["a", "b"], "deep": {"x": 1}}


@pytest.mark.parametrize(
    "path", ["", "args", "id", "args.", "args..x", "result.x", "args.pages.3", "args.pages.x", "args.pages.0.x", "args.n.x.y"]
)
def test_what_cannot_be_changed_is_told(path: str) -> None:
    with pytest.raises(ConfigurationError, match=r"args\.x|leads nowhere"):
        with_changes(recorded_job("does", {"pages": ["a"], "n": 1}), {path: 1})
