"""The public keys of an issuer of tokens (JWKS), fetched without holding up the event loop, and kept for a while."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from email.message import Message
from functools import lru_cache
from typing import IO, Any, Final
from urllib.parse import urlsplit

import orjson
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from headrace import ConfigurationError

logger = logging.getLogger(__name__)

ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
"""With what a token may be signed. None of them has a secret that the issuer and the gateway would share."""

AGAIN_SECONDS: Final = 10.0
"""The least time between two fetches: tokens that name keys which there are not must not become requests to the issuer."""

_FETCH_SECONDS = 10.0
_LARGEST_BYTES = 1024 * 1024
_MOST_KEYS = 100

Fetch = Callable[[str], Awaitable[Any]]


class IssuerKeys:
    """The public keys of an issuer, by their id.

    A key that it no longer publishes counts no more after the next fetch. While it cannot be reached, what was known stays.

    Args:
        issuer: its address.
        jwks_url: where its keys are; its own configuration says it when left out.
        refresh_seconds: how often they are fetched.
        fetch: gets the JSON of an address.
        clock: seconds that only ever rise.

    Raises:
        ConfigurationError: an address is not safe to be fetched from.
    """

    def __init__(
        self,
        issuer: str,
        jwks_url: str | None = None,
        *,
        refresh_seconds: float = 600.0,
        fetch: Fetch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._configuration_url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        self._jwks_url = jwks_url
        check_url(jwks_url or issuer)
        self._issuer = issuer
        self._refresh_seconds = refresh_seconds
        self._fetch = fetch or fetch_json
        self._clock = clock
        self._keys: dict[str | None, PyJWK] = {}
        self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Fetches the keys. An issuer that cannot be reached is asked again later, and is no reason not to start."""
        await self._fetched()
        self._refreshing = asyncio.create_task(self._refresh(), name="headrace-issuer-keys")

    async def stop(self) -> None:
        """Fetches no more."""
        tasks = [task for task in (self._refreshing, self._fetching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def known(self, key_id: str | None) -> PyJWK | None:
        """The key of that id, if it was fetched. A token that names none means the only one."""
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    async def find(self, key_id: str | None) -> PyJWK | None:
        """The key of that id; one that is not known is looked for at the issuer, unless that was done a moment ago."""
        if (found := self.known(key_id)) is not None:
            return found
        if self._fetching is not None or self._clock() - self._tried_at >= AGAIN_SECONDS:
            await self._fetched()
        return self.known(key_id)

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(self._refresh_seconds if self._keys else AGAIN_SECONDS)
            await self._fetched()

    async def _fetched(self) -> None:
        """Returns when a fetch has ended: all who need one at a time share it."""
        if self._fetching is None:
            self._tried_at = self._clock()
            self._fetching = asyncio.create_task(self._fetch_once(), name="headrace-issuer-fetch")
        await asyncio.shield(self._fetching)

    async def _fetch_once(self) -> None:
        try:
            url = self._jwks_url or await self._discover()
            keys = parse_keys(await self._fetch(url))
            if not keys:
                raise ValueError(f"{url} has no key for {', '.join(ALGORITHMS)}")
            self._keys = keys
        except Exception as error:
            # Whatever it is, who has a token of a known key, or an API key, must still come in.
            logger.warning("The keys of the issuer %s cannot be fetched, and are asked for again: %s", self._issuer, error)
        finally:
            self._fetching = None

    async def _discover(self) -> str:
        configuration = await self._fetch(self._configuration_url)
        if not isinstance(configuration, dict) or configuration.get("issuer") != self._issuer:
            raise ValueError(f"{self._configuration_url} is not the configuration of this issuer")
        url = configuration.get("jwks_uri")
        if not isinstance(url, str):
            raise ValueError(f"{self._configuration_url} names no jwks_uri")
        check_url(url)
        return url


def parse_keys(jwks: Any) -> dict[str | None, PyJWK]:
    """The keys of a JWKS by which a token may be signed; others are passed over."""
    listed = jwks.get("keys") if isinstance(jwks, Mapping) else None
    found: dict[str | None, PyJWK] = {}
    for raw in (listed if isinstance(listed, list) else [])[:_MOST_KEYS]:
        if not isinstance(raw, dict) or raw.get("use", "sig") != "sig" or raw.get("kty") not in ("RSA", "EC", "OKP"):
            continue
        try:
            key = PyJWK(raw)
        except (PyJWTError, TypeError, ValueError):
            # What it says of itself would put the key into the log.
            logger.warning("A key of the issuer cannot be used, and is passed over.")
            continue
        if key.algorithm_name in ALGORITHMS:
            found[key.key_id] = key
    return found


def check_url(url: str) -> None:
    """Checks that what is fetched from an address is what its owner sent.

    Raises:
        ConfigurationError: it is neither `https`, nor an address of this machine.
    """
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme != "http" or not is_loopback(parts.hostname or ""):
        raise ConfigurationError(
            f"{url!r} is no address from which an issuer's keys can be trusted: give one with https:// in "
            "HEADRACE_AUTH_ISSUER and HEADRACE_AUTH_JWKS_URL."
        )


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether a name or an address means this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return (mapped or address).is_loopback
    except ValueError:
        return False


async def fetch_json(url: str) -> Any:
    """The JSON that stands at an address, fetched in a thread.

    Raises:
        OSError: it cannot be fetched.
        ValueError: it is no JSON, larger than a megabyte, or took longer than ten seconds.
    """
    return await asyncio.to_thread(_fetch, url)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Who may send us elsewhere could send us anywhere."""

    def redirect_request(
        self,
        req: urllib.request.Request,  # noqa: ARG002 - the signature is urllib's
        fp: IO[bytes],  # noqa: ARG002
        code: int,  # noqa: ARG002
        msg: str,  # noqa: ARG002
        headers: Message,  # noqa: ARG002
        newurl: str,  # noqa: ARG002
    ) -> None:
        return None


def _fetch(url: str) -> Any:
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if is_loopback(urlsplit(url).hostname or ""):
        handlers.append(urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)
    deadline = time.monotonic() + _FETCH_SECONDS
    body = bytearray()
    with opener.open(url, timeout=_FETCH_SECONDS) as response:
        while chunk := response.read1(65_536):
            body += chunk
            if len(body) > _LARGEST_BYTES:
                raise ValueError(f"{url} has more than {_LARGEST_BYTES:,} bytes")
            if time.monotonic() > deadline:
                raise ValueError(f"{url} took longer than {_FETCH_SECONDS:g} s")
    return orjson.loads(body)
