"""Who can reach a gateway at all: where it may listen, by which names it may be addressed, and which web pages may call it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Self
from urllib.parse import urlsplit

from headrace import ConfigurationError, Settings
from headrace_gateway.access.authentication import is_required
from headrace_gateway.access.errors import HostRefused, OriginRefused
from headrace_gateway.access.issuer import is_loopback

ANY = "*"


def check_exposure(settings: Settings, address: str) -> None:
    """Checks that a gateway that asks nobody who they are listens on this machine alone.

    Args:
        address: the IP address that it would listen on.

    Raises:
        ConfigurationError: it does not.
    """
    if is_required(settings) or is_loopback(address):
        return
    raise ConfigurationError(
        f"The gateway would listen on {settings.gateway.host}, beyond this machine, and ask nobody who they are. Set "
        "HEADRACE_GATEWAY_AUTHENTICATION=required and make an API key (headrace keys create), or name an issuer of tokens "
        "(HEADRACE_AUTH_ISSUER); or listen on 127.0.0.1 (HEADRACE_GATEWAY_HOST)."
    )


@dataclass(frozen=True, kw_only=True)
class Names:
    """The names under which a gateway is addressed, and the web pages that may call it.

    A page of anybody can have a browser on this machine call `localhost`; and by giving its own name the address 127.0.0.1 it
    can even read the answers. The browser tells the truth about both: in `Origin` and in `Host`.

    Attributes:
        hosts: names and addresses in lower case, without ports, or with the port that is meant; `*` for any. Those of this
            machine's loopback are always allowed.
        origins: as `https://host:port`; the same.
    """

    hosts: frozenset[str] = field(default_factory=frozenset)
    origins: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """What the settings say.

        Raises:
            ConfigurationError: an origin is none.
        """
        gateway = settings.gateway
        own = set() if is_unspecified(gateway.host) else {gateway.host.lower()}
        hosts = {name.strip("[]") if name.endswith("]") else name for name in _listed(gateway.allowed_hosts)}
        origins = {origin.rstrip("/") for origin in _listed(gateway.allowed_origins)}
        for origin in origins - {ANY}:
            parts = urlsplit(origin)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.path or parts.query:
                raise ConfigurationError(
                    f"HEADRACE_GATEWAY_ALLOWED_ORIGINS names {origin!r}: give https://host or https://host:port."
                )
        return cls(hosts=frozenset(own | hosts), origins=frozenset(origins))

    def check_host(self, host: str | None) -> None:
        """Checks the header `Host` of a request. Raises: HostRefused."""
        if ANY in self.hosts:
            return
        given = (host or "").lower()
        name = _host_of(given)
        if name is None or not (is_loopback(name) or name in self.hosts or given in self.hosts):
            raise HostRefused(
                "The gateway does not go by the name in the header Host: address it by one of its own, or have the operator add "
                "it to HEADRACE_GATEWAY_ALLOWED_HOSTS."
            )

    def check_origin(self, origin: str | None) -> None:
        """Checks the header `Origin`, which browsers send for web pages, and others do not. Raises: OriginRefused."""
        if origin is None or ANY in self.origins:
            return
        given = origin.lower()
        try:
            parts = urlsplit(given)
            local = parts.scheme in ("http", "https") and is_loopback(parts.hostname or "")
        except ValueError:
            local = False
        if not local and given not in self.origins:
            raise OriginRefused(
                "Web pages of this origin may not call the gateway: have the operator add it to HEADRACE_GATEWAY_ALLOWED_ORIGINS."
            )


def is_unspecified(host: str) -> bool:
    """Whether it means every address of the machine, as `0.0.0.0` does."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host


def _listed(value: str | None) -> set[str]:
    return {name.strip().lower() for name in (value or "").split(",") if name.strip()}


# All requests have the same few; a stranger who sends many names only has them looked at each time.
@lru_cache(maxsize=256)
def _host_of(given: str) -> str | None:
    """The name in a `Host` header, without its port; None where it is not one name and one port."""
    try:
        parts = urlsplit(f"//{given}")
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        return None
    return parts.hostname if parts.hostname and parts.netloc == given and "@" not in given else None
