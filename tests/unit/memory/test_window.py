"""Which part of a memory is summarised, and which is kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.memory.summarise import estimate_tokens
from headrace.memory.window import Window, WindowPolicy, divide
from headrace.models import MemoryEntry
from support.memories import entry


def entries(*tokens: int) -> list[MemoryEntry]:
    return [entry("x" * 4 * count, entry_id=f"e{number}") for number, count in enumerate(tokens)]


def summary(tokens: int) -> MemoryEntry:
    return entry("s" * 4 * tokens, entry_id=f"s{tokens}", role="summary")


def policy(token_budget: int, keep_turns: int = 2) -> WindowPolicy:
    return WindowPolicy(token_budget=token_budget, keep_turns=keep_turns)


def split(window: Window | None) -> tuple[list[str], list[str], int]:
    assert window is not None
    return [each.id for each in window.old], [each.id for each in window.kept], window.summary_tokens


def test_within_the_budget_there_is_nothing_to_do() -> None:
    assert divide(entries(50, 50), policy(100)) is None
    assert divide([], policy(100)) is None


def test_half_of_the_budget_is_kept_as_it_is_and_the_rest_is_for_the_summary() -> None:
    assert split(divide(entries(*[20] * 10), policy(120))) == (["e0", "e1", "e2", "e3", "e4", "e5", "e6"], ["e7", "e8", "e9"], 60)


def test_the_newest_turns_stay_also_where_they_take_more_than_half() -> None:
    assert split(divide(entries(*[20] * 10), policy(120, keep_turns=5)))[1:] == (["e5", "e6", "e7", "e8", "e9"], 30)


def test_the_summary_gets_a_quarter_however_much_the_newest_turns_take() -> None:
    old, kept, room = split(divide(entries(100, 100, 300, 300), policy(200)))
    assert (old, kept, room) == (["e0", "e1"], ["e2", "e3"], 50)


def test_nothing_is_summarised_that_would_not_get_smaller() -> None:
    assert divide(entries(40, 300, 300), policy(200)) is None
    assert divide([summary(50), *entries(300, 300)], policy(200)) is None
    assert divide(entries(300, 300), policy(200)) is None


def test_an_earlier_summary_is_summarised_with_what_came_after_it() -> None:
    assert split(divide([summary(60), *entries(*[20] * 6)], policy(120)))[:2] == (["s60", "e0", "e1", "e2"], ["e3", "e4", "e5"])


def test_a_summary_is_no_turn() -> None:
    assert split(divide([*entries(100, 100, 10), summary(10), *entries(10)], policy(40, keep_turns=2)))[1] == ["e2", "s10", "e0"]


def test_one_compaction_names_no_more_than_fits_into_its_record() -> None:
    many = [entry("x" * 40, entry_id=f"{number:0150d}") for number in range(10_000)]
    window = divide(many, policy(1_000))
    assert window is not None
    assert len(window.old) == 1024 * 1024 // 153
    assert window.old[0] is many[0]


sizes = st.lists(st.tuples(st.integers(0, 200), st.booleans()), max_size=60)


@given(sizes, st.integers(50, 1_000), st.integers(0, 20))
def test_any_memory_is_divided_into_an_older_and_a_newer_part(
    shape: list[tuple[int, bool]], token_budget: int, keep_turns: int
) -> None:
    memory = [
        entry("x" * 4 * tokens, entry_id=str(number), role="summary" if is_summary else "user")
        for number, (tokens, is_summary) in enumerate(shape)
    ]
    window = divide(memory, policy(token_budget, keep_turns))
    if window is None:
        return
    assert [*window.old, *window.kept] == memory
    turns = [each for each in window.kept if each.role != "summary"]
    assert len(turns) >= min(keep_turns, sum(each.role != "summary" for each in memory))
    old_tokens = sum(estimate_tokens(each.content) for each in window.old)
    kept_tokens = sum(estimate_tokens(each.content) for each in window.kept)
    assert old_tokens > window.summary_tokens >= token_budget // 4
    # With a summary as large as allowed, the memory is within its budget, unless the turns that must stay take too much.
    assert kept_tokens + window.summary_tokens <= token_budget or len(turns) <= keep_turns
