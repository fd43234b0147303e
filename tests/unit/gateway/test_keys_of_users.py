"""An idempotency key is a caller's own: whoever else uses the same one meets nothing of theirs, and loses nothing to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace_gateway.access import ALL_SCOPES, Principal, Scope
from support.gateway import data_of
from support.served import served
from support.written_jobs import Engines, WrittenLog

pytestmark = pytest.mark.usefixtures("quick")

ONE_USER = ALL_SCOPES - {Scope.JOBS_ACT_AS}
KNOWN = {
    "ann": Principal(subject="ann", scopes=ONE_USER, credential="ann"),
    "bob": Principal(subject="bob", scopes=ONE_USER, credential="bob"),
    "service": Principal(subject="service", scopes=ALL_SCOPES, credential="service"),
}


async def schedule(client: httpx.AsyncClient, to: str = "x", **arguments: Any) -> dict[str, Any]:
    call = {"kind": "digest", "args": {"to": [to]}, "idempotencyKey": "monday", **arguments}
    return dict(data_of(await client.post("/tools/scheduler", json=call)))


async def test_another_users_key_is_another_request(log: WrittenLog, engines: Engines, tmp_path: Path) -> None:
    engines.define(kind="digest")
    async with served(log, tmp_path, KNOWN) as gateway, gateway.http("ann") as ann, gateway.http("bob") as bob:
        hers = await schedule(ann)
        his = await schedule(bob, wait=0.1)
        assert hers["jobId"] != his["jobId"]
        assert his["job"]["ctx"]["userId"] == "bob"
        other = await schedule(bob, to="y", orderingKey="o")
        assert other["jobId"] not in (hers["jobId"], his["jobId"])
        assert (await schedule(ann))["jobId"] == hers["jobId"]


async def test_who_may_act_for_a_user_asks_again_for_that_user(log: WrittenLog, engines: Engines, tmp_path: Path) -> None:
    engines.define(kind="digest")
    async with served(log, tmp_path, KNOWN) as gateway, gateway.http("ann") as ann, gateway.http("service") as service:
        hers = await schedule(ann)
        assert (await schedule(service, userId="ann"))["jobId"] == hers["jobId"]
        assert (await schedule(service, to="z"))["jobId"] != hers["jobId"]
