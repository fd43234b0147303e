"""A gateway that asks nobody who they are, and a proxy on the same machine that says for whom it asks."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from headrace import Client
from headrace_gateway import Gateway, GatewayServer
from support.served import settings_in
from support.written_jobs import WrittenLog

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.parametrize("trusted", [None, "*"])
async def test_whoever_comes_from_elsewhere_is_refused(
    log: WrittenLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: str | None
) -> None:
    if trusted is not None:
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", trusted)
    settings = settings_in(tmp_path, gateway={"port": 0})
    async with (
        Client(settings, log=log, view=True) as client,
        Gateway(settings, client) as gateway,
        GatewayServer(settings, client=client, gateway=gateway) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as http,
    ):
        assert (await http.get("/workers")).status_code == 200
        for given in ("192.0.2.7", "127.0.0.1, 192.0.2.7", "192.0.2.7, 127.0.0.1", "192.0.2.7, ::1"):
            refused = await http.get("/workers", headers={"X-Forwarded-For": given})
            assert (refused.status_code, given) == (403, given)
