"""The interfaces behind which all input and output stands."""

from headrace.ports.log import (
    Acknowledged,
    AppendFailed,
    Committed,
    GroupConsumer,
    GroupListener,
    Header,
    Log,
    LogReader,
    LogWriter,
    NewRecord,
    Outcome,
    Record,
    TopicPartition,
)
from headrace.ports.memory import (
    Appended,
    ConversationMemory,
    ConversationRef,
    MemorySnapshot,
    MemoryStore,
    NewCompaction,
    NewEntry,
    StoredCompaction,
)
from headrace.ports.recordings import Recorder, RecordingKey

__all__ = [
    "Acknowledged",
    "AppendFailed",
    "Appended",
    "Committed",
    "ConversationMemory",
    "ConversationRef",
    "GroupConsumer",
    "GroupListener",
    "Header",
    "Log",
    "LogReader",
    "LogWriter",
    "MemorySnapshot",
    "MemoryStore",
    "NewCompaction",
    "NewEntry",
    "NewRecord",
    "Outcome",
    "Record",
    "Recorder",
    "RecordingKey",
    "StoredCompaction",
    "TopicPartition",
]
