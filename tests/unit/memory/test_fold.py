"""The fold of a conversation's records: which compactions hold, what is live, in which order it is read."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from headrace.core.memory import NO_VERSION, CompactionFact, Conversation, EntryFact, Verdict


def entry(offset: int, entry_id: str | None = None, weight: int = 10) -> EntryFact:
    return EntryFact(offset, entry_id or f"e{offset}", weight)


def compaction(offset: int, base: int, supersedes: list[str], *, job: str | None = None, weight: int = 3) -> CompactionFact:
    return CompactionFact(offset, f"s{offset}", weight, job or f"job-{offset}", base, supersedes)


def folded(*facts: EntryFact | CompactionFact) -> tuple[Conversation, list[Verdict]]:
    conversation = Conversation()
    return conversation, [conversation.apply(fact) for fact in facts]


def live_ids(conversation: Conversation) -> list[str]:
    return [place.id for place in conversation.live()]


def test_a_summary_stands_where_the_entries_stood_that_it_replaced() -> None:
    conversation, _ = folded(entry(0), entry(1), entry(2), entry(3), compaction(4, NO_VERSION, ["e0", "e1"]), entry(5))
    assert live_ids(conversation) == ["s4", "e2", "e3", "e5"]
    assert conversation.weight == 33
    assert conversation.version == 4


def test_a_compaction_replaces_an_earlier_summary_too() -> None:
    conversation, verdicts = folded(
        entry(0), entry(1), compaction(2, NO_VERSION, ["e0"]), entry(3), compaction(4, 2, ["s2", "e1"])
    )
    assert verdicts[-1] is Verdict.APPLIED
    assert live_ids(conversation) == ["s4", "e3"]
    assert [(place.id, by) for place, by in conversation.history()] == [
        ("e0", "s2"),
        ("s2", "s4"),
        ("e1", "s4"),
        ("s4", None),
        ("e3", None),
    ]


def test_an_append_between_read_and_write_stays_and_voids_nothing() -> None:
    conversation, verdicts = folded(entry(0), entry(1), entry(2), compaction(3, NO_VERSION, ["e0", "e1"]))
    assert verdicts[-1] is Verdict.APPLIED
    assert live_ids(conversation) == ["s3", "e2"]


def test_the_second_of_two_compactions_of_one_version_is_void() -> None:
    conversation, verdicts = folded(
        entry(0), entry(1), compaction(2, NO_VERSION, ["e0"]), compaction(3, NO_VERSION, ["e0", "e1"])
    )
    assert verdicts[-1] is Verdict.STALE
    assert live_ids(conversation) == ["s2", "e1"]
    assert conversation.version == 2


def test_a_void_compaction_is_no_base() -> None:
    _, verdicts = folded(
        entry(0), entry(1), compaction(2, NO_VERSION, ["e0"]), compaction(3, NO_VERSION, ["e1"]), compaction(4, 3, ["e1"])
    )
    assert verdicts[-2:] == [Verdict.STALE, Verdict.STALE]


def test_a_job_compacts_once() -> None:
    conversation, verdicts = folded(
        entry(0), entry(1), compaction(2, NO_VERSION, ["e0"], job="j"), compaction(3, 2, ["e1"], job="j")
    )
    assert verdicts[-1] is Verdict.JOB_DONE
    assert live_ids(conversation) == ["s2", "e1"]
    applied = conversation.compaction_of("j")
    assert applied is not None
    assert applied.version == 2


def test_ids_that_are_not_live_are_without_effect_and_none_at_all_is_void() -> None:
    conversation, verdicts = folded(
        entry(0),
        compaction(1, NO_VERSION, ["nobody"]),
        compaction(2, NO_VERSION, ["nobody", "e0", "e0"]),
        entry(3, "nobody"),
    )
    assert verdicts == [Verdict.APPLIED, Verdict.NOTHING_LIVE, Verdict.APPLIED, Verdict.APPLIED]
    assert live_ids(conversation) == ["s2", "nobody"]
    assert conversation.compactions()[0].superseded == 1


def test_an_id_belongs_to_the_first_record_that_has_it_also_when_superseded() -> None:
    conversation, verdicts = folded(entry(0, "a"), entry(1, "a"), compaction(2, NO_VERSION, ["a"]), entry(3, "a"), entry(4, "s2"))
    assert verdicts == [Verdict.APPLIED, Verdict.ID_TAKEN, Verdict.APPLIED, Verdict.ID_TAKEN, Verdict.ID_TAKEN]
    assert live_ids(conversation) == ["s2"]


def test_what_a_compaction_did_is_told_in_entries_and_weight() -> None:
    conversation, _ = folded(entry(0), entry(1), entry(2), compaction(3, NO_VERSION, ["e0", "e1"], job="j"), entry(4))
    applied = conversation.compaction_of("j")
    assert applied is not None
    assert (applied.entries_before, applied.entries_after, applied.superseded) == (3, 2, 2)
    assert (applied.weight_before, applied.weight_after) == (30, 13)


# --- any log ----------------------------------------------------------------------------------------------------------


@st.composite
def logs(draw: st.DrawFn) -> list[EntryFact | CompactionFact]:
    """A log as any number of writers may have left it: fresh and stale bases, repeated ids and jobs, gaps."""
    facts: list[EntryFact | CompactionFact] = []
    offset = 0
    ids: list[str] = ["unknown"]
    bases: list[int] = [NO_VERSION]
    for _ in range(draw(st.integers(0, 30))):
        offset += draw(st.integers(1, 3))
        if draw(st.booleans()):
            repeated = draw(st.booleans()) and draw(st.booleans())
            entry_id = draw(st.sampled_from(ids)) if repeated else f"e{offset}"
            facts.append(EntryFact(offset, entry_id, draw(st.integers(0, 9))))
            ids.append(entry_id)
        else:
            base = bases[-1] if draw(st.booleans()) else draw(st.sampled_from(bases))
            supersedes = draw(st.lists(st.sampled_from(ids), min_size=1, max_size=6))
            facts.append(compaction(offset, base, supersedes, job=f"j{draw(st.integers(0, 8))}"))
            ids.append(f"s{offset}")
            bases.append(offset)
    return facts


def state(conversation: Conversation) -> Any:
    return (
        conversation.version,
        conversation.weight,
        conversation.live(),
        conversation.history(),
        conversation.compactions(),
    )


@given(logs())
def test_nothing_is_lost_every_id_is_live_or_leads_to_something_live(facts: list[EntryFact | CompactionFact]) -> None:
    conversation, _ = folded(*facts)
    live = set(live_ids(conversation))
    replaced_by = {place.id: by for place, by in conversation.history() if by is not None}
    assert not live & replaced_by.keys()
    assert len(conversation.history()) == len(live) + len(replaced_by)
    for fact in facts:
        if isinstance(fact, EntryFact):
            current = fact.id
            while current not in live:
                current = replaced_by[current]
    assert conversation.weight == sum(place.weight for place in conversation.live())


@given(logs())
def test_the_compactions_that_hold_are_a_chain_with_one_link_a_job(facts: list[EntryFact | CompactionFact]) -> None:
    conversation, verdicts = folded(*facts)
    applied = [
        fact
        for fact, verdict in zip(facts, verdicts, strict=True)
        if isinstance(fact, CompactionFact) and verdict is Verdict.APPLIED
    ]
    previous = NO_VERSION
    for fact in applied:
        assert fact.base_version == previous
        previous = fact.offset
    assert conversation.version == previous
    assert len({fact.job_id for fact in applied}) == len(applied)
    assert [compacted.version for compacted in conversation.compactions()] == [fact.offset for fact in applied]


@given(logs(), st.data())
def test_records_delivered_again_change_nothing(facts: list[EntryFact | CompactionFact], data: st.DataObject) -> None:
    expected, _ = folded(*facts)
    conversation = Conversation()
    for index, fact in enumerate(facts):
        conversation.apply(fact)
        for again in data.draw(st.lists(st.sampled_from(facts[: index + 1]), max_size=3)):
            assert conversation.apply(again) is Verdict.READ_BEFORE
    assert state(conversation) == state(expected)


@given(logs(), st.sets(st.integers(0, 30)))
def test_appends_never_make_a_compaction_void(facts: list[EntryFact | CompactionFact], where: set[int]) -> None:
    expected, _ = folded(*facts)
    interleaved: list[EntryFact | CompactionFact] = []
    for index, fact in enumerate(facts):
        if index in where:
            interleaved.append(EntryFact(1000 + index, f"extra{index}", 1))
        interleaved.append(fact)
    # Offsets rise again with the extra entries between; bases follow.
    offsets = {fact.offset: index for index, fact in enumerate(interleaved)}
    offsets[NO_VERSION] = NO_VERSION
    moved: list[EntryFact | CompactionFact] = []
    for index, fact in enumerate(interleaved):
        if isinstance(fact, CompactionFact):
            moved.append(CompactionFact(index, fact.id, fact.weight, fact.job_id, offsets[fact.base_version], fact.supersedes))
        else:
            moved.append(EntryFact(index, fact.id, fact.weight))
    conversation, _ = folded(*moved)
    without_extras = [place.id for place in conversation.live() if not place.id.startswith("extra")]
    assert without_extras == live_ids(expected)
    assert [compacted.id for compacted in conversation.compactions()] == [compacted.id for compacted in expected.compactions()]
