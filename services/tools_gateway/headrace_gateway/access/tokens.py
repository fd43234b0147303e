"""Lets in who has a token (JWT) of the issuer that the settings name."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

import jwt
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from headrace import AuthSettings, ConfigurationError, check_plain
from headrace_gateway.access.errors import CredentialInvalid
from headrace_gateway.access.issuer import ALGORITHMS, IssuerKeys
from headrace_gateway.access.principal import Principal
from headrace_gateway.access.scopes import known_scopes

logger = logging.getLogger(__name__)

CREDENTIAL = "token:"

_LONGEST_TOKEN = 16_384
_LONGEST_IDENTITY = 200
_LONGEST_WAIT_SECONDS = 60.0
MOST_REMEMBERED: Final = 4_096
"""So many tokens are not checked again while they last: to check a signature takes a tenth of a millisecond."""


class TokenAuthenticator:
    """Knows tokens: their signature, issuer, audience, times and claims.

    Args:
        keys: the issuer's; made from the settings when left out.
        now: seconds since the Unix epoch; it decides about tokens that were let in before.

    Raises:
        ConfigurationError: the settings name no issuer or no audience, or an address that cannot be trusted.
    """

    def __init__(self, settings: AuthSettings, keys: IssuerKeys | None = None, *, now: Callable[[], float] = time.time) -> None:
        if settings.issuer is None:
            raise ConfigurationError("HEADRACE_AUTH_ISSUER is not set: no token could count.")
        if not settings.audience:
            raise ConfigurationError(
                "HEADRACE_AUTH_AUDIENCE is not set: a token that the issuer made for another service would count here, too. "
                "Set it to what the issuer puts into `aud` for this gateway."
            )
        self._settings = settings
        self._issuer = settings.issuer
        self._keys = keys or IssuerKeys(settings.issuer, settings.jwks_url, refresh_seconds=settings.keys_refresh_seconds)
        self._now = now
        self._remembered: OrderedDict[bytes, tuple[Principal, PyJWK]] = OrderedDict()

    async def start(self) -> None:
        """Fetches the issuer's keys."""
        await self._keys.start()

    async def stop(self) -> None:
        """Fetches no more."""
        await self._keys.stop()

    async def authenticate(self, credential: str | None) -> Principal:
        """Whose token it is. Raises: CredentialInvalid, which never says what is wrong with it."""
        token = credential or ""
        digest = hashlib.sha256(token.encode(errors="replace")).digest()
        remembered = self._remembered.get(digest)
        if remembered is not None:
            principal, key = remembered
            if self.is_valid(principal) and self._keys.known(key.key_id) is key:
                return principal
            del self._remembered[digest]
        principal, key = await self._check(token)
        self._remembered[digest] = principal, key
        if len(self._remembered) > MOST_REMEMBERED:
            self._remembered.popitem(last=False)
        return principal

    def is_valid(self, principal: Principal) -> bool:
        """Whether the token has not expired."""
        return principal.expires_at is None or self._now() < principal.expires_at

    async def until_invalid(self, principal: Principal) -> None:
        """Returns when the token has expired."""
        while self.is_valid(principal):
            left = _LONGEST_WAIT_SECONDS if principal.expires_at is None else principal.expires_at - self._now() + 0.001
            await asyncio.sleep(min(max(left, 0.0), _LONGEST_WAIT_SECONDS))

    async def _check(self, token: str) -> tuple[Principal, PyJWK]:
        try:
            if len(token) > _LONGEST_TOKEN:
                raise ValueError("it is too long")
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                raise ValueError("its algorithm is none that counts")
            key = await self._keys.find(header.get("kid"))
            if key is None:
                raise ValueError("its key is not known")
            claims = jwt.decode(
                token,
                key,
                algorithms=list(ALGORITHMS),
                issuer=self._issuer,
                audience=self._settings.audience,
                leeway=self._settings.leeway_seconds,
                options={"require": ["exp", "iss", "aud"], "enforce_minimum_key_length": True},
            )
            return self._principal_of(claims), key
        except (PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            # Only what kind of error it is: some of their texts repeat a part of the token.
            logger.debug("A token was refused: %s", str(error) if type(error) is ValueError else type(error).__name__)
        raise CredentialInvalid("This token does not count: get a new one from its issuer.")

    def _principal_of(self, claims: Mapping[str, Any]) -> Principal:
        settings = self._settings
        tenant = settings.tenant if settings.tenant_claim is None else _identity(claims, settings.tenant_claim)
        scopes = claims.get(settings.scopes_claim)
        return Principal(
            subject=_identity(claims, settings.subject_claim),
            tenant=tenant,
            scopes=known_scopes(scopes.split() if isinstance(scopes, str) else scopes if isinstance(scopes, list) else ()),
            credential=f"{CREDENTIAL}{self._issuer}",
            expires_at=float(claims["exp"]) + settings.leeway_seconds,
            call_id=_identity(claims, settings.call_claim) if settings.call_claim in claims else None,
            call_digest=_identity(claims, settings.digest_claim).lower() if settings.digest_claim in claims else None,
        )


def _identity(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= _LONGEST_IDENTITY:
        raise ValueError("a claim is missing, or is no text of 1 to 200 characters")
    return check_plain(value)
