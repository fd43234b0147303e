"""Where a gateway may listen, by which names it is addressed, and which web pages may call it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from headrace import ConfigurationError, GatewaySettings
from headrace.settings import AuthSettings, Settings, load_settings
from headrace_gateway import Gateway
from headrace_gateway.access import HostRefused, Names, OriginRefused, check_exposure
from headrace_gateway.http.guard import Guard
from support.access import RememberedAudit
from support.jobs import InMemoryJobs


def settings(auth: AuthSettings | None = None, **values: Any) -> Settings:
    return load_settings(gateway=GatewaySettings(**values), auth=auth or AuthSettings())


ISSUER = AuthSettings(issuer="https://issuer.example", audience="headrace")


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "fe80::1%eth0", "2001:db8::1"])
@pytest.mark.parametrize("given", [settings(), settings(authentication="none"), settings(ISSUER, authentication="none")])
def test_who_asks_nobody_does_not_listen_beyond_this_machine(address: str, given: Settings) -> None:
    with pytest.raises(ConfigurationError, match=r"HEADRACE_GATEWAY_AUTHENTICATION=required.*headrace keys create"):
        check_exposure(given, address)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1"])
def test_on_loopback_nobody_need_be_asked(address: str) -> None:
    check_exposure(settings(), address)


@pytest.mark.parametrize("given", [settings(authentication="required"), settings(ISSUER)])
def test_who_asks_listens_anywhere(given: Settings) -> None:
    check_exposure(given, "0.0.0.0")


LOOPBACK_HOSTS = ["localhost", "LOCALHOST:8787", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8787", "127.5.5.5"]
FOREIGN_HOSTS = [
    None, "", "evil.example", "evil.example:8787", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example@localhost",
    "localhost@evil.example", "localhost/evil", "localhost:port", "localhost,evil.example", "0.0.0.0", "192.0.2.1", "[::1",
    "localhost:1:2", "localhost#", "local host", "localhost?x",
]  # fmt: skip


@pytest.mark.parametrize("host", LOOPBACK_HOSTS)
def test_names_of_loopback_are_allowed(host: str) -> None:
    Names.of(settings()).check_host(host)


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_other_names_are_refused(host: str | None) -> None:
    with pytest.raises(HostRefused, match="HEADRACE_GATEWAY_ALLOWED_HOSTS"):
        Names.of(settings(host="0.0.0.0")).check_host(host)


def test_names_that_the_settings_have_are_allowed() -> None:
    names = Names.of(settings(host="10.0.0.5", allowed_hosts="Gateway.example, other.example:8443,[2001:db8::1]"))
    for host in ("10.0.0.5:8787", "gateway.example", "GATEWAY.example:99", "other.example:8443", "[2001:db8::1]:8787"):
        names.check_host(host)
    for host in ("other.example", "other.example:1", "x.gateway.example", "10.0.0.6"):
        with pytest.raises(HostRefused):
            names.check_host(host)
    Names.of(settings(allowed_hosts="*")).check_host("anything.example")


@pytest.mark.parametrize("origin", [None, "http://localhost:3000", "https://127.0.0.1", "http://[::1]:1"])
def test_pages_of_this_machine_and_programs_may_call(origin: str | None) -> None:
    Names.of(settings()).check_origin(origin)


@pytest.mark.parametrize(
    "origin", ["", "null", "https://evil.example", "http://localhost.evil.example", "file://localhost", "http://[x", "localhost"]
)
def test_other_pages_may_not(origin: str) -> None:
    with pytest.raises(OriginRefused, match="HEADRACE_GATEWAY_ALLOWED_ORIGINS"):
        Names.of(settings(allowed_origins="https://good.example")).check_origin(origin)


def test_origins_that_the_settings_have_are_allowed() -> None:
    names = Names.of(settings(allowed_origins="https://Good.example/, http://also.example:8080"))
    for origin in ("https://good.example", "HTTPS://GOOD.EXAMPLE", "http://also.example:8080"):
        names.check_origin(origin)
    for origin in ("http://good.example", "https://good.example:444", "http://also.example"):
        with pytest.raises(OriginRefused):
            names.check_origin(origin)
    Names.of(settings(allowed_origins="*")).check_origin("null")


@pytest.mark.parametrize("origin", ["good.example", "https://good.example/page", "ftp://good.example"])
def test_an_origin_that_is_none_is_told(origin: str) -> None:
    with pytest.raises(ConfigurationError, match="HEADRACE_GATEWAY_ALLOWED_ORIGINS"):
        Names.of(settings(allowed_origins=origin))


async def test_the_guard_stands_before_the_application() -> None:
    reached: list[str] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    audit = RememberedAudit()
    gateway = Gateway(load_settings(), InMemoryJobs(), audit=audit)
    guard = Guard(application, names=Names.of(settings()), gateway=gateway)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(guard), base_url="http://localhost") as client:
        refused = await client.post("/tools/scheduler", headers={"host": "evil.example"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "host_refused")
        refused = await client.post("/mcp", headers={"origin": "https://evil.example"})
        assert (refused.status_code, refused.headers["content-type"]) == (403, "application/problem+json")
        assert refused.json()["code"] == "origin_refused"
        two = [("host", "localhost"), ("host", "evil.example")]
        assert (await client.get("/tools", headers=two)).status_code == 403
        assert reached == []
        assert (await client.get("/readyz", headers={"origin": "https://evil.example"})).status_code == 200
        assert (await client.get("/readyz", headers={"host": "10.0.0.7:8787"})).status_code == 200
        assert (await client.get("/tools", headers={"origin": "http://localhost:3000"})).status_code == 200
        await client.post("/tools/scheduler")
        await client.get("/tools/scheduler")
    assert reached == ["/readyz", "/readyz", "/tools", "/tools/scheduler", "/tools/scheduler"]
    assert audit.outcomes == ["host_refused", "origin_refused", "host_refused", "ok"]
