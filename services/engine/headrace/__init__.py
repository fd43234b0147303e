"""headrace: background jobs for AI agents, on Kafka or Redpanda."""

from __future__ import annotations

from headrace.client import Client
from headrace.codec import describe_problems
from headrace.core.rate import RateLimit
from headrace.core.retry import RetryPolicy
from headrace.core.status import JobStatus
from headrace.dead_letters import DeadLetter, Redrive
from headrace.engine.engine import WorkerEngine
from headrace.errors import (
    ArgumentsInvalid,
    BrokerAuthenticationFailed,
    BrokerCertificateUntrusted,
    BrokerError,
    BrokerNotConfigured,
    BrokerUnreachable,
    ConfigurationError,
    ConversationInvalid,
    DeadLetterUnknown,
    DeadLetterUnusable,
    EngineStuck,
    EnqueueTimeout,
    GiveUp,
    HeadraceError,
    IdempotencyConflict,
    JobCancelled,
    JobFailed,
    JobNotCancellable,
    JobNotRetriable,
    JobRefused,
    JobTimeout,
    JobUnknown,
    LocalBrokerError,
    LocalBrokerInUse,
    MemoryConflict,
    MemoryStoreError,
    PayloadTooLarge,
    RecordUndecodable,
    ResultTooLarge,
    Retry,
    SummaryRejected,
    TopicMisconfigured,
    TopicMissing,
    WorkerImportError,
    WorkerProcessDied,
    WorkerUnknown,
)
from headrace.job_context import JobContext
from headrace.memory import Memory
from headrace.models import DEFAULT_TENANT, CallContext, ClosedModel, Job, WireModel, WorkerDefinition, WorkerSummary
from headrace.ports import MemorySnapshot, NewEntry
from headrace.settings import GatewaySettings, Settings, load_settings
from headrace.tool_calls import CallTopics, ReceivedCall, ToolCallConsumer
from headrace.tool_models import (
    JobAnswer,
    JobList,
    MemoryCompactionArguments,
    SchedulerArguments,
    SchedulerReceipt,
    ToolCall,
    ToolError,
    ToolRefusal,
    ToolSuccess,
    WorkerList,
    WorkerManagerArguments,
)
from headrace.views.job_queries import WorkerCounts
from headrace.views.on_demand import Readiness
from headrace.worker import AbstractWorker, worker
from headrace.workers.memory_compaction import MemoryCompactionWorker

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_TENANT",
    "AbstractWorker",
    "ArgumentsInvalid",
    "BrokerAuthenticationFailed",
    "BrokerCertificateUntrusted",
    "BrokerError",
    "BrokerNotConfigured",
    "BrokerUnreachable",
    "CallContext",
    "CallTopics",
    "Client",
    "ClosedModel",
    "ConfigurationError",
    "ConversationInvalid",
    "DeadLetter",
    "DeadLetterUnknown",
    "DeadLetterUnusable",
    "EngineStuck",
    "EnqueueTimeout",
    "GatewaySettings",
    "GiveUp",
    "HeadraceError",
    "IdempotencyConflict",
    "Job",
    "JobAnswer",
    "JobCancelled",
    "JobContext",
    "JobFailed",
    "JobList",
    "JobNotCancellable",
    "JobNotRetriable",
    "JobRefused",
    "JobStatus",
    "JobTimeout",
    "JobUnknown",
    "LocalBrokerError",
    "LocalBrokerInUse",
    "Memory",
    "MemoryCompactionArguments",
    "MemoryCompactionWorker",
    "MemoryConflict",
    "MemorySnapshot",
    "MemoryStoreError",
    "NewEntry",
    "PayloadTooLarge",
    "RateLimit",
    "Readiness",
    "ReceivedCall",
    "RecordUndecodable",
    "Redrive",
    "ResultTooLarge",
    "Retry",
    "RetryPolicy",
    "SchedulerArguments",
    "SchedulerReceipt",
    "Settings",
    "SummaryRejected",
    "ToolCall",
    "ToolCallConsumer",
    "ToolError",
    "ToolRefusal",
    "ToolSuccess",
    "TopicMisconfigured",
    "TopicMissing",
    "WireModel",
    "WorkerCounts",
    "WorkerDefinition",
    "WorkerEngine",
    "WorkerImportError",
    "WorkerList",
    "WorkerManagerArguments",
    "WorkerProcessDied",
    "WorkerSummary",
    "WorkerUnknown",
    "describe_problems",
    "load_settings",
    "worker",
]
