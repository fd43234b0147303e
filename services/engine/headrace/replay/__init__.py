"""What the log has recorded: read again, and run again through today's code. Nothing here changes the live system."""

from headrace.core.comparison import Comparison as Comparison
from headrace.core.comparison import Outcome as Outcome
from headrace.core.comparison import Verdict as Verdict
from headrace.core.comparison import compare as compare
from headrace.replay.effects import Effects as Effects
from headrace.replay.exporting import Exported as Exported
from headrace.replay.exporting import export_span as export_span
from headrace.replay.file_history import FileHistory as FileHistory
from headrace.replay.file_history import read_file_history as read_file_history
from headrace.replay.history import History as History
from headrace.replay.history import RecordedJob as RecordedJob
from headrace.replay.history import Span as Span
from headrace.replay.history import Wanted as Wanted
from headrace.replay.log_history import LogHistory as LogHistory
from headrace.replay.log_history import open_history as open_history
from headrace.replay.rerun import Rerun as Rerun
from headrace.replay.rerun import Rerunner as Rerunner
from headrace.replay.rerun import RerunOptions as RerunOptions
from headrace.replay.state import JobAt as JobAt
from headrace.replay.state import states_at as states_at
from headrace.replay.timeline import Line as Line
from headrace.replay.timeline import Timeline as Timeline
from headrace.replay.timeline import timeline_of as timeline_of
