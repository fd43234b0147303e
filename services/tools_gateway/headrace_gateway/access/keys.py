"""Lets in who has an API key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime

from headrace import ApiKey, ApiKeyInvalid, ApiKeys, parse_key
from headrace_gateway.access.errors import CredentialInvalid
from headrace_gateway.access.principal import Principal
from headrace_gateway.access.scopes import known_scopes

CREDENTIAL = "key:"
KEY_START = "hr_"

# A clock may be set while somebody waits for an expiry.
_LONGEST_WAIT_SECONDS = 60.0


class KeyAuthenticator:
    """Knows the API keys of the namespace, once it was started, and hears of revocations.

    Args:
        now: seconds since the Unix epoch.
    """

    def __init__(self, keys: ApiKeys, *, now: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._now = now
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._principals: dict[str, tuple[ApiKey, Principal]] = {}
        keys.on_change(self._changed)

    async def start(self) -> None:
        """Reads all keys that there are. Raises: BrokerError."""
        await self._keys.start()

    async def stop(self) -> None:
        """Reads no more."""
        await self._keys.stop()

    @property
    def trouble(self) -> str | None:
        """Why revocations cannot be read at the moment, or None."""
        return self._keys.trouble

    @property
    def count(self) -> int:
        """How many keys there are, those included that do not count any more."""
        return len(self._keys.keys)

    async def authenticate(self, credential: str | None) -> Principal:
        """Whose key it is. Raises: CredentialInvalid, which never says whether the key was unknown, expired or revoked."""
        try:
            found = self._keys.find(parse_key(credential or ""))
        except ApiKeyInvalid:
            found = None
        if found is None or not self._keys.is_valid(found.id):
            raise CredentialInvalid("This API key does not count: ask the operator for one (headrace keys create).")
        made = self._principals.get(found.id)
        if made is None or made[0] is not found:
            made = self._principals[found.id] = found, principal_of(found)
        return made[1]

    def is_valid(self, principal: Principal) -> bool:
        """Whether the key is neither revoked nor expired."""
        return self._keys.is_valid(principal.credential.removeprefix(CREDENTIAL))

    async def until_invalid(self, principal: Principal) -> None:
        """Returns when the key is revoked or has expired."""
        key_id = principal.credential.removeprefix(CREDENTIAL)
        waiting = self._waiting.setdefault(key_id, set())
        while self._keys.is_valid(key_id):
            changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiting.add(changed)
            try:
                await asyncio.wait([changed], timeout=self._patience(self._keys.keys[key_id].expires_at))
            finally:
                waiting.discard(changed)
        if not waiting:
            self._waiting.pop(key_id, None)

    def _patience(self, expires_at: datetime | None) -> float:
        if expires_at is None:
            return _LONGEST_WAIT_SECONDS
        return min(max(expires_at.timestamp() - self._now(), 0.0) + 0.001, _LONGEST_WAIT_SECONDS)

    def _changed(self, key_id: str) -> None:
        for changed in self._waiting.get(key_id, ()):
            if not changed.done():
                changed.set_result(None)


def principal_of(key: ApiKey) -> Principal:
    """Who comes in with a key."""
    return Principal(subject=key.subject, tenant=key.tenant, scopes=known_scopes(key.scopes), credential=f"{CREDENTIAL}{key.id}")
