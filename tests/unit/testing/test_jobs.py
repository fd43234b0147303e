"""Jobs for tests of workers."""

from __future__ import annotations

import os
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from headrace import (
    AbstractWorker,
    ArgumentsInvalid,
    Client,
    ConfigurationError,
    JobContext,
    JobRefused,
    MemoryStoreError,
    PayloadTooLarge,
    ResultInvalid,
    ResultTooLarge,
    Settings,
    WorkerEngine,
    worker,
)
from headrace.testing import InMemoryCluster, InMemoryLog, job_for, result_as_json


class Letter(BaseModel):
    address: str = Field(alias="to")
    copies: int = 1


class Sends(AbstractWorker[Letter]):
    """Sends letters."""

    name = "sends"
    order_by = ("to",)

    async def run(self, args: Letter, ctx: JobContext) -> Any:
        return [args.address, args.copies, ctx.job.ctx.user_id, ctx.job.tenant]


@worker
def counts(args: dict[str, Any], ctx: JobContext) -> int:
    return len(args)


async def test_it_is_the_job_that_a_client_would_have_accepted(tmp_path: Path) -> None:
    log = InMemoryLog(InMemoryCluster())
    settings = Settings(bootstrap_servers="in-memory:9092", data_directory=tmp_path)
    engine = WorkerEngine(settings, log=log)
    engine.register_worker(Sends)
    async with engine, Client(settings, log=log) as client:
        accepted = await client.enqueue(Sends, {"to": "ann"}, {"userId": "bob"}, tenant="acme")
    made = job_for(Sends, {"to": "ann"}, {"userId": "bob"}, tenant="acme")
    own = {"id", "createdAt", "updatedAt", "source"}
    assert {name: value for name, value in made.to_wire().items() if name not in own} == {
        name: value for name, value in accepted.to_wire().items() if name not in own
    }
    assert (made.ordering_key, made.source) == ("ann", None)
    assert made.id != job_for(Sends, {"to": "ann"}).id


async def test_process_job_takes_it() -> None:
    sends = Sends()
    for args in ({"to": "ann"}, Letter(to="ann")):
        assert await sends.process_job(job_for(sends, args, {"userId": "bob"})) == ["ann", 1, "bob", "default"]
    assert await counts.process_job(job_for(counts)) == 0


@pytest.mark.parametrize("given", ["sends", Letter, test_process_job_takes_it, None], ids=["name", "class", "function", "none"])
def test_what_is_no_worker_is_told_what_to_give(given: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"job_for takes a worker, or its class, and .* is none: give what `@worker`"):
        job_for(given, {"to": "ann"})


async def test_what_it_returns_is_made_json_as_an_engine_does() -> None:
    @worker
    async def forgets(args: dict[str, Any], ctx: JobContext) -> Any:
        return {"price": ctx.recorded("price", lambda: 3)}

    returned = await forgets.process_job(job_for(forgets))
    with closing(returned["price"]), pytest.raises(ResultInvalid, match="no JSON: Type is not JSON serializable: coroutine"):
        result_as_json(returned)
    assert result_as_json({1: (Letter(to="ann"), {"x"}), "none": None}) == {
        "1": [{"to": "ann", "copies": 1}, ["x"]],
        "none": None,
    }
    assert result_as_json(None) is None
    with pytest.raises(ResultTooLarge):
        result_as_json("x" * 600_000)


async def test_what_a_context_does_without_an_engine() -> None:
    asked: list[int] = []

    def ask() -> tuple[int, int]:
        asked.append(1)
        return 1, 2

    @worker(executor="process")
    def looks(args: dict[str, Any], ctx: JobContext) -> Any:
        for _ in range(2):
            assert ctx.recorded_from_thread("model", ask) == [1, 2]
        with pytest.raises(JobRefused, match="without an engine"):
            ctx.enqueue_from_thread("looks", {})
        with pytest.raises(MemoryStoreError, match="without an engine"):
            _ = ctx.memory
        with pytest.raises(ValueError, match="from 0 to 1"):
            ctx.progress(2)
        ctx.progress(0.5)
        return ctx.cancelled, ctx.replaying, ctx.fencing_token, ctx.attempt, os.getpid(), threading.current_thread().name

    *found, process, thread = await looks.process_job(job_for(looks))
    assert found == [False, False, (0, 1), 1]
    assert (process, asked) == (os.getpid(), [1, 1])
    assert thread != threading.current_thread().name


def test_what_a_client_refuses_is_refused() -> None:
    with pytest.raises(ArgumentsInvalid, match="to: Field required"):
        job_for(Sends)
    with pytest.raises(ArgumentsInvalid, match="did you mean userId"):
        job_for(counts, {}, {"user_id": "bob", "userID": "bob"})
    with pytest.raises(ArgumentsInvalid, match="must be JSON"):
        job_for(counts, {"what": object()})
    with pytest.raises(PayloadTooLarge):
        job_for(counts, {"what": "x" * 600_000})

    class Nameless(Sends):
        name = ""

    with pytest.raises(ConfigurationError, match="give the worker a name"):
        job_for(Nameless, {"to": "ann"})
