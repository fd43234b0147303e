"""What jobs got from outside, recorded in the topic `recordings`, so that their replays get the same."""

from headrace.recordings.calls import RecordedCalls as RecordedCalls
from headrace.recordings.calls import check_function as check_function
from headrace.recordings.failures import decode_failure as decode_failure
from headrace.recordings.live import LiveRecordings as LiveRecordings
from headrace.recordings.names import given_names as given_names
from headrace.recordings.names import keyed_names as keyed_names
from headrace.recordings.names import of_either_kind as of_either_kind
from headrace.recordings.reading import recordings_of as recordings_of
from headrace.recordings.records import RecordingPlace as RecordingPlace
from headrace.recordings.records import parse_recording_key as parse_recording_key
