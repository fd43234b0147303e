"""What `/readyz` tells, and to whom: how the gateway stands to everybody, and the reasons to those who are known."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.views import on_demand
from headrace_gateway.access import ALL_SCOPES, Principal
from support.access import RememberedAudit
from support.log import PATIENCE_SECONDS
from support.served import Served, served
from support.written_jobs import WrittenLog

pytestmark = pytest.mark.usefixtures("quick")

KNOWN = {"ann": Principal(subject="ann", scopes=ALL_SCOPES)}
REASON = "nothing answers at memory:9092"


@pytest.fixture(autouse=True)
def asks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_demand, "_ASK_SECONDS", 0.02)


async def asked(gateway: Served, token: str | None = None, **headers: str) -> dict[str, Any]:
    """What is answered as soon as the gateway is not ready."""
    async with gateway.http(token) as client, asyncio.timeout(PATIENCE_SECONDS):
        while True:
            response: httpx.Response = await client.get("/readyz", headers=headers)
            if response.status_code == 503:
                told: dict[str, Any] = response.json()
                return told
            await asyncio.sleep(0.02)


async def test_a_stranger_is_told_that_it_is_not_ready_and_not_why(
    log: WrittenLog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    audit = RememberedAudit()
    with caplog.at_level(logging.INFO, "headrace_gateway.http.health"):
        async with served(log, tmp_path, KNOWN, audit=audit) as gateway:
            log.go_away()
            stranger = await asked(gateway)
            await asked(gateway)
            assert audit.outcomes == []
            wrong = await asked(gateway, "wrong")
            known = await asked(gateway, "ann")
            elsewhere = await asked(gateway, "ann", host="evil.example")
            log.accept_requests()
    assert REASON in known["detail"]
    for told in (stranger, wrong, elsewhere):
        assert told.keys() == {"ready", "detail", "behind"}
        assert (told["ready"], told["behind"]) == (False, 0)
        assert told["detail"].startswith("the gateway is not ready")
        assert "9092" not in str(told) and "broker" not in str(told)
    assert audit.outcomes == ["unauthenticated", "ok"]
    # The log says it once, however often it is asked.
    told_to_log = [record.getMessage() for record in caplog.records if record.name == "headrace_gateway.http.health"]
    assert [REASON in message for message in told_to_log] == [True]


async def test_where_nobody_is_asked_a_page_by_another_name_is_a_stranger(log: WrittenLog, tmp_path: Path) -> None:
    async with served(log, tmp_path) as gateway:
        log.go_away()
        assert REASON in (await asked(gateway))["detail"]
        assert REASON not in str(await asked(gateway, host="evil.example"))
        assert REASON not in str(await asked(gateway, **{"x-forwarded-for": "203.0.113.7"}))
        log.accept_requests()


async def test_a_stranger_is_told_how_far_it_is(log: WrittenLog, tmp_path: Path) -> None:
    async with served(log, tmp_path, KNOWN) as gateway, gateway.http() as stranger:
        assert (await stranger.get("/readyz", headers={"host": "10.0.0.7:8787"})).json() == {
            "ready": True,
            "detail": "the view of jobs is up to date",
            "behind": 0,
        }
        gateway.app.state.close_streams()
        assert (await asked(gateway))["detail"] == "the gateway stops"
