"""What `headrace bench gateway` compares with, in a process of its own: a FastAPI application that writes one record a call.

    python -m headrace.bench.gateway_bare TOPIC PARTITIONS

It is served as the gateway is: by uvicorn with h11, on uvloop, without an access log. `POST /nothing` does not even write.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import orjson
import uvicorn
from fastapi import FastAPI, Request, Response

from headrace.bench.gateway_worker import ID_PLACE, job_record_like
from headrace.core.identifiers import fresh_id
from headrace.kafka.bare import BareClient, BareProducer
from headrace.ports import TopicPartition
from headrace.runtime import run, wall_clock
from headrace.settings import Settings, load_settings


def bare_application(settings: Settings, topic: str, partitions: int) -> FastAPI:
    """Accepts jobs without asking anything: it reads the body, writes a job record of the gateway's bytes, and answers."""
    before, after = job_record_like().split(ID_PLACE.encode())
    numbers = count()
    producers: list[BareProducer] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with BareClient(settings).producer() as producer:
            producers.append(producer)
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/jobs")
    async def accept(request: Request) -> Response:
        await request.body()
        job_id = fresh_id(wall_clock(), os.urandom(10)).encode()
        target = TopicPartition(topic, next(numbers) % partitions)
        await producers[0].append(target, job_id, b"%b%b%b" % (before, job_id, after))
        return _answer(job_id.decode())

    @app.post("/nothing")
    async def nothing(request: Request) -> Response:
        await request.body()
        return _answer(ID_PLACE)

    return app


def _answer(job_id: str) -> Response:
    return Response(orjson.dumps({"ok": True, "data": {"scheduled": True, "jobId": job_id}}), media_type="application/json")


async def _serve(topic: str, partitions: int) -> None:
    config = uvicorn.Config(
        bare_application(load_settings(), topic, partitions),
        host="127.0.0.1",
        port=0,
        http="h11",
        ws="none",
        lifespan="on",
        log_level="info",  # it says which port it has taken
        access_log=False,
        server_header=False,
    )
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    run(_serve(sys.argv[1], int(sys.argv[2])))
