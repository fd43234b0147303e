"""The keys of recordings: whatever jobs and names are called, none is taken for another's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.ports import RecordingKey
from headrace.recordings.records import RecordingPlace, job_part, parse_recording_key, recording_key

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
PLACES = st.builds(
    RecordingPlace, TEXT, st.integers(1, 99), st.builds(RecordingKey, TEXT, st.integers(0, 99), st.none() | st.integers(0, 9))
)


@given(PLACES)
def test_a_key_is_read_as_it_was_written(place: RecordingPlace) -> None:
    key = recording_key(*place)
    assert parse_recording_key(key) == place
    assert key.partition(b"/")[0] == job_part(place.job_id)
