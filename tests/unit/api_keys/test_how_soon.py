"""How soon a key counts where it was not made, and how soon it counts no more: in virtual time, where no machine is too slow."""

from __future__ import annotations

import asyncio

import pytest

from headrace import ApiKeys
from headrace.settings import load_settings
from headrace.testing import InMemoryCluster, InMemoryLog
from headrace_gateway.access import CredentialInvalid, Principal
from headrace_gateway.access.keys import KeyAuthenticator
from support.virtual_time import in_virtual_time

PROMISED_SECONDS = 2.0


async def principal_of(authenticator: KeyAuthenticator, credential: str) -> Principal:
    """Whose key it is, once it counts."""
    while True:
        try:
            return await authenticator.authenticate(credential)
        except CredentialInvalid:
            await asyncio.sleep(0.01)


@in_virtual_time
async def test_a_key_and_its_revocation_count_everywhere_within_two_seconds() -> None:
    settings, log = load_settings(), InMemoryLog(InMemoryCluster())
    async with ApiKeys(settings, log=log) as operator, ApiKeys(settings, log=log) as keys:
        authenticator = KeyAuthenticator(keys)
        for moment in range(20):  # of the round in which they are read
            await asyncio.sleep(moment * 0.037)
            made, key = await operator.create(name="laptop", subject="ann", scopes=["jobs:read"])
            async with asyncio.timeout(PROMISED_SECONDS):
                principal = await principal_of(authenticator, key.text)
            stream = asyncio.create_task(authenticator.until_invalid(principal))
            await operator.revoke(made.id)
            async with asyncio.timeout(PROMISED_SECONDS):
                await stream
            with pytest.raises(CredentialInvalid):
                await authenticator.authenticate(key.text)
