"""Finds out who calls. A transport hands over the credential that came with a call, and gets a principal or a refusal."""

from __future__ import annotations

from typing import Protocol

from headrace_gateway.access.principal import LOCAL, Principal


class Authenticator(Protocol):
    """Knows credentials."""

    async def authenticate(self, credential: str | None) -> Principal:
        """Whose credential it is.

        Args:
            credential: what followed `Bearer`, or an API key however the transport carries one; None where there is none.

        Raises:
            CredentialInvalid: it is none that counts, or there is none.
        """


class Anyone:
    """Asks nobody who they are: whoever comes is `LOCAL`. For gateways that only this machine can reach."""

    async def authenticate(self, credential: str | None) -> Principal:  # noqa: ARG002 - what is given does not matter
        return LOCAL
