"""The worker of `headrace bench gateway`, and the call that asks for it."""

from __future__ import annotations

from typing import Any, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field

from headrace.abstract_worker import AbstractWorker
from headrace.bench.workload import ARGUMENT_BYTES
from headrace.job_context import JobContext
from headrace.models import SCHEMA_VERSION

WORKER_PATH: Final = "headrace.bench.gateway_worker:GatewayNoOp"
ID_PLACE: Final = "00000000-0000-0000-0000-000000000000"
"""Where the id of a job goes in the record of `job_record_like`."""


class GatewayNoOpArguments(BaseModel):
    """As a worker's arguments are: closed, so that a call is checked against the schema of this."""

    model_config = ConfigDict(extra="forbid")

    subject: str = Field(min_length=1, max_length=200)
    note: str
    priority: int = Field(0, ge=0, le=9)
    labels: list[str] = Field(default_factory=list, max_length=20)


class GatewayNoOp(AbstractWorker[GatewayNoOpArguments]):
    """Does nothing, in the event loop."""

    name = "bench_gateway_no_op"
    description = "Does nothing."
    category = "benchmark"
    kind = "bench_gateway_no_op"
    concurrency = 512

    async def run(self, args: GatewayNoOpArguments, ctx: JobContext) -> None:
        """Nothing."""


def job_arguments() -> dict[str, Any]:
    """Arguments of 200 bytes."""
    given: dict[str, Any] = {"subject": "report-7", "note": "", "priority": 3, "labels": ["nightly", "bench"]}
    return {**given, "note": "x" * (ARGUMENT_BYTES - len(orjson.dumps(given)))}


def call_body(agent: int) -> bytes:
    """The body of an agent's call of `scheduler`."""
    return orjson.dumps({"kind": GatewayNoOp.kind, "conversationId": f"conversation-{agent}", "args": job_arguments()})


def job_record_like() -> bytes:
    """What the gateway writes for such a call, with `ID_PLACE` for the job's id: the bare endpoint writes the same bytes."""
    return orjson.dumps(
        {
            "schemaVersion": SCHEMA_VERSION,
            "id": ID_PLACE,
            "workerName": GatewayNoOp.name,
            "createdAt": "2026-01-01T00:00:00.000Z",
            "args": job_arguments(),
            "tenant": "default",
            "ctx": {"userId": "agent-100", "conversationId": "conversation-100"},
        }
    )
