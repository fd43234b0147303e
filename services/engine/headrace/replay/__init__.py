"""What the log has recorded: read again, and run again through today's code. Nothing here changes the live system."""

from headrace.core.comparison import Comparison as Comparison
from headrace.core.comparison import Outcome as Outcome
from headrace.core.comparison import Verdict as Verdict
from headrace.core.comparison import compare as compare
from headrace.replay.effects import Effects as Effects
from headrace.replay.facade import StreamRequest as StreamRequest
from headrace.replay.facade import replay_stream as replay_stream
from headrace.replay.history import History as History
from headrace.replay.history import RecordedJob as RecordedJob
from headrace.replay.history import Span as Span
from headrace.replay.history import Wanted as Wanted
from headrace.replay.pacing import Order as Order
from headrace.replay.pacing import Pacing as Pacing
from headrace.replay.rerun import Rerun as Rerun
from headrace.replay.rerun import Rerunner as Rerunner
from headrace.replay.rerun import RerunOptions as RerunOptions
from headrace.replay.sandbox import clean as clean
from headrace.replay.stream import StreamReplay as StreamReplay
from headrace.replay.summary import Replayed as Replayed
from headrace.replay.summary import Summary as Summary
