"""Finds out who calls. A transport hands over the credential that came with a call, and gets a principal or a refusal."""

from __future__ import annotations

import asyncio
from typing import Protocol

from headrace_gateway.access.principal import LOCAL, Principal


class Authenticator(Protocol):
    """Knows credentials."""

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
