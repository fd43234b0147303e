"""Every error that headrace raises, in one tree.

    HeadraceError
    ├── ConfigurationError              a setting is wrong; the message says which and what to do
    │   ├── BrokerNotConfigured         no broker is named and none runs for this folder
    │   ├── TopicMisconfigured          a topic exists with settings that would lose data
    │   ├── TopicMissing                a topic that another process makes does not exist
    │   ├── NamespaceIsSandbox          something that is to last was to be in the sandbox of a replay
    │   └── WorkerImportError           the module with the user's workers cannot be loaded
    ├── BrokerError                     a broker was named, but cannot be used
    │   ├── BrokerUnreachable           nothing answers at its address
    │   ├── BrokerAuthenticationFailed  it answers, and refuses the credentials
    │   ├── BrokerCertificateUntrusted  it answers, and its certificate is not trusted
    │   ├── AppendTimeout               a record was not acknowledged in time
    │   └── LocalBrokerError            the broker on this machine could not be started
    │       └── LocalBrokerInUse        another process runs a broker on the same data
    ├── JobRefused                      a job was not accepted; nothing was written
    │   ├── WorkerUnknown               no such worker is defined
    │   ├── ArgumentsInvalid            the arguments do not fit the worker's model
    │   ├── PayloadTooLarge             arguments and context are over the limit
    │   ├── IdempotencyConflict         its idempotency key belongs to a job with other arguments
    │   ├── JobNotRetriable             the job has not failed, or its arguments are gone
    │   ├── JobNotCancellable           the job has ended
    │   └── DeadLetterUnusable          no job can be made of a dead letter
    ├── JobUnknown                      no such job
    ├── WorkerInUse                     a worker cannot be removed: an engine runs it, or jobs of it have not ended
    ├── WatchInterrupted                a watcher of jobs is told no more for now, and may go on from where it was
    ├── ChangesGone                     what a watcher of jobs has missed cannot be told any more
    ├── HistoryGone                     what is to be looked at is in the log no more
    ├── ExportDamaged                   a file is no export, or not all of one
    ├── DeadLetterUnknown               no such dead letter
    ├── ApiKeyUnknown                   no such API key
    ├── ApiKeyInvalid                   an API key cannot be made so
    ├── EnqueueTimeout                  no acknowledgement came in time; it says whether the job may be accepted
    ├── JobFailed                       the cause of a failed attempt that is not an exception of the worker's own
    │   ├── ResultTooLarge              what the worker returned is over the limit
    │   ├── ResultInvalid               what the worker returned is no JSON
    │   ├── RecordingRefused            what is to be recorded is no JSON, or over the limit
    │   ├── JobTimeout                  the attempt took longer than it may
    │   ├── JobCancelled                raised within a job that is to end
    │   ├── WorkerProcessDied           the process of its own died in which the attempt ran
    │   ├── Retry                       raised by a worker that asks for another attempt
    │   └── GiveUp                      raised by a worker that asks for no other attempt
    ├── MemoryStoreError                a conversation's memory was not changed
    │   ├── MemoryConflict              another compaction came first
    │   ├── ConversationInvalid         what is to be put in is no conversation, or no entry
    │   └── SummaryRejected             a summary is empty, not shorter, or an error
    ├── NotRecorded                     a replay asks for what no recording tells
    ├── EngineStuck                     an attempt goes on long after its time: its engine has to end
    └── RecordUndecodable               a record is not what its topic promises

`ConfigurationError` and `BrokerError` end a command with exit code 2; their messages say what to do. An engine under its
supervisor, which outages do not end, has another one for these. `code` is the stable name under which a tool's answer carries an
error; it is mapped once, here. What a replay alone raises besides is in `headrace.replay_errors`.
"""

from __future__ import annotations

from typing import ClassVar, Final

LONGEST_WAIT_SECONDS: Final = 365 * 86_400.0
"""The longest that a job may wait for its next attempt, or an attempt may take: a year."""


class HeadraceError(Exception):
    """The root of all errors that headrace raises on purpose."""

    code: ClassVar[str] = "internal_error"


class ConfigurationError(HeadraceError):
    """A setting is missing or wrong; the message names it and says what to do."""

    code = "configuration_error"


class BrokerNotConfigured(ConfigurationError):
    """No broker is named by an option or the environment, and none runs for this folder."""


class TopicMisconfigured(ConfigurationError):
    """A topic exists with settings under which accepted jobs could be lost; the message has the command that mends it."""


class TopicMissing(ConfigurationError):
    """A topic is read or written that does not exist; the message says who makes it."""


class NamespaceIsSandbox(ConfigurationError):
    """An engine, a gateway or a client was to work in the sandbox of a replay, with which all of that is deleted."""

    code = "namespace_is_sandbox"


class WorkerImportError(ConfigurationError):
    """The module that was named for the workers cannot be imported, or defines none."""


class BrokerError(HeadraceError):
    """A broker was named, but it cannot be used."""

    code = "broker_unavailable"


class BrokerUnreachable(BrokerError):
    """Nothing speaks Kafka's protocol at the address."""


class BrokerAuthenticationFailed(BrokerError):
    """The broker answers and refuses the user name or password."""


class BrokerCertificateUntrusted(BrokerError):
    """The broker's TLS certificate is not trusted, or does not name the host."""


class AppendTimeout(BrokerError, TimeoutError):
    """No acknowledgement of a record came within the time.

    Attributes:
        may_land: whether the record may be in the log, or come into it; where not, it was taken back.
    """

    def __init__(self, *, may_land: bool, seconds: float) -> None:
        self.may_land = may_land
        fate = "it may land all the same" if may_land else "it was taken back before it was sent"
        super().__init__(f"No acknowledgement of a record came within {seconds:.3g} s; {fate}.")


class LocalBrokerError(BrokerError):
    """The broker on this machine could not be started."""


class LocalBrokerInUse(LocalBrokerError):
    """Another process runs a broker on the same data directory."""


def is_outage(error: BaseException | None) -> bool:
    """Whether an error says that brokers are away, or take nothing for now: what passes by itself, whatever the settings are."""
    never = BrokerAuthenticationFailed | BrokerCertificateUntrusted | LocalBrokerError
    return isinstance(error, BrokerError) and not isinstance(error, never)


class JobRefused(HeadraceError):
    """A job was not accepted. Nothing was written."""

    code = "job_refused"


class WorkerUnknown(JobRefused):
    """No worker of that name is defined; the message names those that are."""

    code = "worker_unknown"


class ArgumentsInvalid(JobRefused):
    """The arguments do not fit the model; the message names each field and what is wrong with it."""

    code = "arguments_invalid"


class PayloadTooLarge(JobRefused):
    """Arguments and context together are over the limit of 512 KB."""

    code = "payload_too_large"


class IdempotencyConflict(JobRefused):
    """The idempotency key belongs to a job that was asked for with other arguments; the message names it."""

    code = "idempotency_conflict"


class JobNotRetriable(JobRefused):
    """The job has not failed, or nothing is left of its arguments; the message says which."""

    code = "job_not_retriable"


class JobNotCancellable(JobRefused):
    """The job has ended already, or it is not known where its record stands; the message says which."""

    code = "job_not_cancellable"


class DeadLetterUnusable(JobRefused):
    """No job can be made of a dead letter as it is; the message says why, and what has to be given."""

    code = "dead_letter_unusable"


class JobUnknown(HeadraceError):
    """There is no job of that id, or it is another tenant's."""

    code = "job_unknown"


class WorkerInUse(HeadraceError):
    """A worker is not removed while an engine runs it, or jobs of it wait or run; nothing was changed."""

    code = "worker_in_use"


class WatchInterrupted(HeadraceError):
    """A watcher of jobs is told no more: it was too slow, or its view is gone. It can go on from its last token."""

    code = "watch_interrupted"


class ChangesGone(HeadraceError):
    """A watcher of jobs has missed more than can be told, or asks to go on in another log: it has to begin anew."""

    code = "changes_gone"


class HistoryGone(HeadraceError):
    """What is to be looked at was in the log once, or lies before its beginning; the message says what is left."""

    code = "history_gone"


class ExportDamaged(HeadraceError):
    """A file is no export of recorded jobs, or not all of one; the message says what is wrong with it."""

    code = "export_damaged"


class DeadLetterUnknown(HeadraceError):
    """There is no such dead letter, or none any more."""

    code = "dead_letter_unknown"


class ApiKeyUnknown(HeadraceError):
    """There is no API key of that id."""

    code = "api_key_unknown"


class ApiKeyInvalid(HeadraceError):
    """An API key cannot be entered: it has not the form of one, its id is taken, or what it is to allow makes no sense."""

    code = "api_key_invalid"


class EnqueueTimeout(HeadraceError):
    """No acknowledgement came within the deadline.

    Attributes:
        job_id: the id of the job whose record was sent.
        may_be_accepted: whether the record may have reached the log all the same.
    """

    code = "enqueue_timeout"

    def __init__(self, job_id: str, *, may_be_accepted: bool, seconds: float) -> None:
        self.job_id = job_id
        self.may_be_accepted = may_be_accepted
        advice = (
            "It may have been accepted: repeat the call only with the same idempotency_key, or look for the id first."
            if may_be_accepted
            else "It was not accepted: the call can be repeated."
        )
        super().__init__(f"No acknowledgement for job {job_id} came within {seconds:.3g} s. {advice}")


class JobFailed(HeadraceError):
    """The cause of an attempt's failure that is not an exception of the worker's own."""

    code = "job_failed"


class ResultTooLarge(JobFailed):
    """What the worker returned is over the limit of 512 KB."""

    code = "result_too_large"


class ResultInvalid(JobFailed):
    """What the worker returned is no JSON."""

    code = "result_invalid"


class RecordingRefused(JobFailed):
    """What `ctx.recorded` is to record is no JSON, or over the limit of 512 KB."""

    code = "recording_refused"


class JobTimeout(JobFailed, TimeoutError):
    """An attempt took longer than its worker, or its job, allows."""

    code = "job_timeout"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The attempt took longer than {seconds:g} s.")


class JobCancelled(JobFailed):
    """Raised within a job by `ctx.raise_if_cancelled()`: the attempt is to end, and what it was about is void."""

    code = "job_cancelled"

    def __init__(self, message: str = "The attempt is to end: its job was cancelled, or it takes longer than it may.") -> None:
        super().__init__(message)


class WorkerProcessDied(JobFailed):
    """The child process died in which an attempt ran, by itself or by the system's hand.

    Attributes:
        exit_code: as `subprocess` has it: the negative number of the signal that ended it; None where it never came to life.
    """

    code = "worker_process_died"

    def __init__(self, exit_code: int | None, how: str = "died") -> None:
        self.exit_code = exit_code
        super().__init__(f"The process in which the attempt ran {how}.")


class EngineStuck(HeadraceError):
    """An attempt goes on long after its time, and nothing but the end of its engine's process ends it."""

    code = "engine_stuck"


class NotRecorded(HeadraceError):
    """A replay asks for an answer by `ctx.recorded` that was not recorded, or for memory that is not in the export."""

    code = "not_recorded"


class Retry(JobFailed):
    """Raised by a worker: the attempt failed, and another is to follow, whatever the exceptions are that the policy names.

    The attempts of the job's `RetryPolicy` bound it; where there is none, those of `RetryPolicy()`.

    Attributes:
        after: seconds until the next attempt; None for what the policy says.

    Raises:
        ValueError: `after` is negative, or longer than a year.
    """

    code = "retry"

    after: float | None = None

    def __init__(self, message: str = "The worker asks for another attempt.", *, after: float | None = None) -> None:
        if after is not None and not 0 <= after <= LONGEST_WAIT_SECONDS:
            raise ValueError(f"Retry(after={after!r}): give seconds, from 0 to a year ({LONGEST_WAIT_SECONDS:.0f}).")
        super().__init__(message)
        self.after = after


class GiveUp(JobFailed):
    """Raised by a worker: the job fails at once, whatever its `RetryPolicy` says."""

    code = "give_up"

    def __init__(self, message: str = "The worker asks for no other attempt.") -> None:
        super().__init__(message)


class MemoryStoreError(HeadraceError):
    """A conversation's memory could not be changed as asked; it is unchanged."""

    code = "memory_error"


class MemoryConflict(MemoryStoreError):
    """Another compaction of the same conversation came first."""

    code = "memory_conflict"


class ConversationInvalid(MemoryStoreError):
    """What is to be put into memory is no conversation or no entry; the message says what is wrong with it."""

    code = "conversation_invalid"


class SummaryRejected(MemoryStoreError):
    """A summary is empty, not shorter than what it replaces, or an error message; nothing was changed."""

    code = "summary_rejected"


class RecordUndecodable(HeadraceError):
    """A record's bytes are not what its topic promises."""

    code = "record_undecodable"


class LeaseLost(HeadraceError):
    """An instance holds a job partition no longer; another may run its jobs."""

    code = "lease_lost"
