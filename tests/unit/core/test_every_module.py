"""Everything in `headrace.core` is pure, so that any input can be tried: each of its modules has a test that does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import headrace.core

MODULES = sorted(path.stem for path in Path(headrace.core.__path__[0]).glob("[a-z]*.py"))
UNIT_TESTS = Path(__file__).parents[1]


def properties() -> dict[str, str]:
    """The text of each test file that tries any input, by its name."""
    texts = {path.name: path.read_text() for path in UNIT_TESTS.rglob("test_*.py")}
    return {name: text for name, text in texts.items() if re.search(r"^@given\(|\(RuleBasedStateMachine\)", text, re.MULTILINE)}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_of_the_core_is_tried_with_any_input(module: str) -> None:
    named = re.compile(rf"^from headrace\.core\.{module} import |^from headrace\.core import .*\b{module}\b", re.MULTILINE)
    assert [name for name, text in properties().items() if named.search(text)], (
        f"no test with any input names headrace.core.{module}: add one to tests/unit/core"
    )
