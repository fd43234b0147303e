"""The API keys of a namespace: read from the topic `api-keys` to its end, and followed; made and revoked by writing to it.

No key is needed for that but the right to write to the topic: so the first one can be made.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Final, Self

from headrace.api_keys.form import ApiKeyText, digest_of, matches, new_key
from headrace.codec import decode, encode
from headrace.core.timestamps import from_milliseconds
from headrace.core.topics import Topics
from headrace.errors import ApiKeyInvalid, ApiKeyUnknown, BrokerUnreachable, RecordUndecodable
from headrace.kafka.log import KafkaLog
from headrace.models import DEFAULT_TENANT, ApiKey
from headrace.ports import Log, NewRecord, Record, TopicPartition
from headrace.runtime import wall_clock
from headrace.sandbox_refusal import create_live_topics
from headrace.settings import Settings
from headrace.views.follower import Batch, Follower, Undecodable

_logger = logging.getLogger(__name__)

_READ_SECONDS: Final = 30.0
_WRITE_SECONDS: Final = 10.0


class ApiKeys:
    """All API keys, revoked and expired ones too. An async context manager; once started it knows all that there were then, and
    learns of others, and of revocations, within half a second as long as the brokers can be reached.

    Args:
        log: a cluster that is in use already; it stays open.
        now: milliseconds since the Unix epoch.
        randomness: makes so many random bytes.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        log: Log | None = None,
        now: Callable[[], int] = wall_clock,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._servers = settings.bootstrap_servers
        self._topics = Topics(settings.namespace)
        self._topic = self._topics.api_keys
        self._target = TopicPartition(self._topic.name, 0)
        self._owns_log = log is None
        self._log = log or KafkaLog(settings)
        self._now = now
        self._randomness = randomness
        self._keys: dict[str, ApiKey] = {}
        self._listeners: list[Callable[[str], None]] = []
        self._follower = Follower(self._log, self._take_in, name="api-keys")
        self.undecodable = Undecodable("api-keys")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def start(self) -> None:
        """Reads all keys that there are now. The topic is made if it is missing.

        Raises:
            NamespaceIsSandbox: the namespace is the sandbox of a replay; nothing was changed.
            BrokerError: the brokers cannot be reached, or that took too long.
        """
        try:
            await create_live_topics(self._log, self._topics, [self._topic])
            await self._follower.start()
            self._follower.follow({self._target: 0})
            await self._follower.wait_caught_up(_READ_SECONDS)
        except TimeoutError:
            await self.stop()
            raise BrokerUnreachable(
                f"{self._servers}: the API keys could not be read within {_READ_SECONDS:g} s: see whether the broker is well."
            ) from None
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Ends the connections."""
        await self._follower.stop()
        if self._owns_log:
            await self._log.close()

    @property
    def trouble(self) -> str | None:
        """Why keys and revocations cannot be read at the moment, or None."""
        return self._follower.trouble

    @property
    def keys(self) -> Mapping[str, ApiKey]:
        """The keys that were read so far, by id."""
        return self._keys

    def on_change(self, call: Callable[[str], None]) -> None:
        """Has `call` called in the event loop with the id of each key that is new, or has changed."""
        self._listeners.append(call)

    def find(self, key: ApiKeyText) -> ApiKey | None:
        """What is kept of a key, if it is one. Whether it still counts, `is_valid` says."""
        found = self._keys.get(key.id)
        return found if found is not None and matches(key, found.digest) else None

    def is_valid(self, key_id: str) -> bool:
        """Whether there is such a key, and it is neither revoked nor expired."""
        found = self._keys.get(key_id)
        if found is None or found.revoked_at is not None:
            return False
        return found.expires_at is None or from_milliseconds(self._now()) < found.expires_at

    async def create(
        self,
        *,
        name: str,
        subject: str,
        scopes: Sequence[str],
        tenant: str = DEFAULT_TENANT,
        expires_at: datetime | None = None,
        key: ApiKeyText | None = None,
    ) -> tuple[ApiKey, ApiKeyText]:
        """Makes a key; it counts everywhere within a second. What is returned second is the key itself, which is kept nowhere.

        Args:
            name: what people call it.
            subject: the user, or the service.
            key: one that its owner has already; a new one is made when left out. To enter the same again changes nothing.

        Raises:
            ApiKeyInvalid: the given key was revoked, or its id is another's.
            BrokerError: it was not acknowledged in time; it may count later all the same.
        """
        key = key or new_key(self._randomness)
        known = self._keys.get(key.id)
        if known is not None:
            if not matches(key, known.digest):
                raise ApiKeyInvalid(f"There is another API key with the id {key.id}: make a new one.")
            if known.revoked_at is not None:
                raise ApiKeyInvalid(f"The API key {key.id} was revoked: make a new one.")
            return known, key
        made = ApiKey(
            id=key.id,
            name=name,
            tenant=tenant,
            subject=subject,
            scopes=sorted(scopes),
            digest=digest_of(key),
            created_at=from_milliseconds(self._now()),
            expires_at=expires_at,
        )
        await self._write(made)
        return made, key

    async def revoke(self, key_id: str) -> ApiKey:
        """Has a key count no more, for good. To revoke it twice changes nothing.

        Raises:
            ApiKeyUnknown: there is no such key.
            BrokerError: it was not acknowledged in time: repeat the call.
        """
        known = self._keys.get(key_id)
        if known is None:
            raise ApiKeyUnknown(f"There is no API key with the id {key_id!r}: `headrace keys list` has those that there are.")
        if known.revoked_at is not None:
            return known
        revoked = known.model_copy(update={"revoked_at": from_milliseconds(self._now())})
        await self._write(revoked)
        return revoked

    async def _write(self, key: ApiKey) -> None:
        writer = self._log.writer()
        await writer.start()
        try:
            await writer.append(self._target, NewRecord(key.id.encode(), encode(key)), timeout=_WRITE_SECONDS)
        finally:
            await writer.stop(timeout=1.0)
        self._apply(key.id, key)

    async def _take_in(self, batch: Batch) -> None:
        for records in batch.records.values():
            for record in records:
                try:
                    self._take(record)
                except RecordUndecodable as error:
                    self.undecodable.add("damaged", record, error)
                    # It may have been a revocation.
                    self._apply(_key_id(record), None)
        await asyncio.sleep(0)

    def _take(self, record: Record) -> None:
        key_id = _key_id(record)
        key = None if record.value is None else decode(ApiKey, record.value)
        if key is not None and key.id != key_id:
            raise RecordUndecodable("its key is not the id in it")
        self._apply(key_id, key)

    def _apply(self, key_id: str, key: ApiKey | None) -> None:
        before = self._keys.get(key_id)
        if key is None:
            self._keys.pop(key_id, None)
        else:
            if before is not None and before.revoked_at is not None and key.revoked_at is None:
                # Who entered it had not read the revocation yet.
                _logger.warning("The API key %s was entered anew after its revocation, and stays revoked here.", key_id)
                return
            self._keys[key_id] = key
        if before != key:
            for call in self._listeners:
                call(key_id)


def _key_id(record: Record) -> str:
    return (record.key or b"").decode(errors="replace")
