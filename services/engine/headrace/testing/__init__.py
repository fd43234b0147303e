"""A Kafka in memory, for tests: `ports.Log` without a broker, and everything that can go wrong with one.

cluster = InMemoryCluster()
engine = WorkerEngine(settings, log=InMemoryLog(cluster))
held = cluster.hold_acknowledgements(engine.topics.job_state.name)

For a test of one worker, `job_for` makes a job to give to its `process_job`, and `result_as_json` of what that returns the result
that the job would have.
"""

from headrace.testing.cluster import InMemoryCluster
from headrace.testing.faults import Faults, Hold
from headrace.testing.jobs import job_for, result_as_json
from headrace.testing.log import InMemoryLog
from headrace.testing.storage import StoredRecord

__all__ = ["Faults", "Hold", "InMemoryCluster", "InMemoryLog", "StoredRecord", "job_for", "result_as_json"]
