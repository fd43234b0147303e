"""Finds out who calls. A transport hands over the credential that came with a call, and gets a principal or a refusal."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from headrace import ApiKeys, Settings
from headrace_gateway.access.errors import CredentialInvalid
from headrace_gateway.access.keys import CREDENTIAL as KEY_CREDENTIAL
from headrace_gateway.access.keys import KEY_START, KeyAuthenticator
from headrace_gateway.access.principal import LOCAL, Principal
from headrace_gateway.access.tokens import TokenAuthenticator

logger = logging.getLogger(__name__)


class Authenticator(Protocol):
    """Knows credentials."""

    @property
    def open_to_anyone(self) -> bool:
        """Whether nobody is asked who they are. Then only this machine may call."""

    @property
    def trouble(self) -> str | None:
        """Why it may not know what is true of credentials now, such as that one was revoked; else None."""

    async def start(self) -> None:
        """Gets to know what it needs before it is asked. Raises: HeadraceError, where it cannot."""

    async def stop(self) -> None:
        """Ends what `start` began."""

    async def authenticate(self, credential: str | None) -> Principal:
        """Whose credential it is.

        Args:
            credential: what followed `Bearer`, or an API key however the transport carries one; None where there is none.

        Raises:
            CredentialInvalid: it is none that counts, or there is none.
        """

    def is_valid(self, principal: Principal) -> bool:
        """Whether the credential by which the principal came in still counts: it was not revoked, and has not expired."""

    async def until_invalid(self, principal: Principal) -> None:
        """Returns when `is_valid` has become false, which may be never. Being cancelled is safe."""


class Anyone:
    """Asks nobody who they are: whoever comes is `LOCAL`. For gateways that only this machine can reach."""

    open_to_anyone = True
    trouble = None

    async def start(self) -> None:
        """Nothing is needed."""

    async def stop(self) -> None:
        """Nothing was begun."""

    async def authenticate(self, credential: str | None) -> Principal:  # noqa: ARG002 - what is given does not matter
        """`LOCAL`."""
        return LOCAL

    def is_valid(self, principal: Principal) -> bool:  # noqa: ARG002
        """Always."""
        return True

    async def until_invalid(self, principal: Principal) -> None:  # noqa: ARG002
        """Never returns."""
        await asyncio.get_running_loop().create_future()


class Credentials:
    """Asks everybody for an API key or, where there is an issuer, for a token of it."""

    open_to_anyone = False

    def __init__(self, keys: KeyAuthenticator, tokens: TokenAuthenticator | None = None) -> None:
        self._keys = keys
        self._tokens = tokens

    @property
    def trouble(self) -> str | None:
        """Why revocations cannot be read at the moment, or None."""
        return self._keys.trouble

    async def start(self) -> None:
        """Reads all API keys, and fetches the issuer's. Raises: BrokerError."""
        await self._keys.start()
        if self._tokens is not None:
            await self._tokens.start()
        elif not self._keys.count:
            logger.warning("There is no API key yet, so that nobody can call the gateway: `headrace keys create` makes one.")

    async def stop(self) -> None:
        """Reads and fetches no more."""
        if self._tokens is not None:
            await self._tokens.stop()
        await self._keys.stop()

    async def authenticate(self, credential: str | None) -> Principal:
        """Whose credential it is. Raises: CredentialInvalid."""
        if credential is None:
            also = "" if self._tokens is None else " or a token"
            raise CredentialInvalid(f"Say who you are: send an API key{also}, as Authorization: Bearer ... over HTTP.")
        if self._tokens is None or credential.startswith(KEY_START):
            return await self._keys.authenticate(credential)
        return await self._tokens.authenticate(credential)

    def is_valid(self, principal: Principal) -> bool:
        """Whether the key is not revoked, and neither it nor the token has expired."""
        return self._of(principal).is_valid(principal)

    async def until_invalid(self, principal: Principal) -> None:
        """Returns when that is no longer so."""
        await self._of(principal).until_invalid(principal)

    def _of(self, principal: Principal) -> KeyAuthenticator | TokenAuthenticator:
        if self._tokens is None or principal.credential.startswith(KEY_CREDENTIAL):
            return self._keys
        return self._tokens


def is_required(settings: Settings) -> bool:
    """Whether callers have to say who they are."""
    if settings.gateway.authentication is None:
        return settings.auth.issuer is not None
    return settings.gateway.authentication == "required"


def authenticator_for(settings: Settings) -> Authenticator:
    """What the settings ask for.

    Raises:
        ConfigurationError: what they say of an issuer makes no sense.
    """
    if not is_required(settings):
        return Anyone()
    tokens = None if settings.auth.issuer is None else TokenAuthenticator(settings.auth)
    return Credentials(KeyAuthenticator(ApiKeys(settings)), tokens)
