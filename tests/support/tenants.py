"""Tenants and their users behind one gateway, and what must never pass between them: for tests of isolation."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from headrace import NewEntry
from headrace_gateway import Operations
from headrace_gateway.access import ALL_SCOPES, Principal, Scope
from support.events import PATIENCE
from support.served import Served, served
from support.written_jobs import Engines, WrittenLog

CONVERSATION = "trip"


@dataclass(frozen=True)
class Actor:
    """Somebody who calls.

    Attributes:
        token: by which the gateway knows them.
        secret: stands in everything that is theirs, and in nothing that anybody else writes.
    """

    principal: Principal
    user: str
    token: str
    secret: str

    @property
    def failed(self) -> str:
        """The id of their job that has failed."""
        return f"failed-{self.token}"

    @property
    def waiting(self) -> str:
        """The id of their job that waits."""
        return f"waiting-{self.token}"

    @property
    def changing(self) -> str:
        """The id of their job that runs, and changes when `Tenants.change` is called."""
        return f"changing-{self.token}"


def _actor(token: str, tenant: str, user: str, scopes: frozenset[Scope]) -> Actor:
    principal = Principal(subject=user, tenant=tenant, scopes=scopes, credential=token)
    return Actor(principal, user, token, f"secret of {token}")


_ONE_USER = ALL_SCOPES - {Scope.JOBS_ACT_AS}
ACME = _actor("acme-service", "acme", "ann", ALL_SCOPES)
"""May act for all users of `acme`; its jobs are those of a user of its own name."""
RIVAL = _actor("rival-service", "rival", "ann", ALL_SCOPES)
"""The same, of another tenant with a user of the same name."""
ANN = _actor("first-user", "shared", "ann", _ONE_USER)
BOB = _actor("second-user", "shared", "bob", _ONE_USER)
ACTORS = (ACME, RIVAL, ANN, BOB)
STRANGERS = ((ACME, RIVAL), (RIVAL, ACME), (ANN, BOB), (BOB, ANN), (ANN, ACME))
"""Pairs of whoever calls, and of whose things are asked for."""


class Tenants:
    """A gateway with jobs and conversations of several tenants.

    Attributes:
        folder: of the gateway's files.
        http: clients of the gateway, each of whose calls has the actor's token.
    """

    def __init__(
        self,
        gateway: Served,
        log: WrittenLog,
        engines: Engines,
        epochs: dict[Actor, int],
        http: dict[str, httpx.AsyncClient],
        folder: Path,
        held: contextlib.AsyncExitStack,
    ) -> None:
        self.folder = folder
        self._held = held
        self._kept: set[object] = set()
        self.gateway = gateway
        self.log = log
        self.engines = engines
        self._epochs = epochs
        self.http = http

    async def keep(self, what: object, begin: Callable[[Tenants], AbstractAsyncContextManager[None]]) -> None:
        """Begins something, unless it has begun, that lasts as long as the tenants do."""
        if what not in self._kept:
            self._kept.add(what)
            await self._held.enter_async_context(begin(self))

    def operations(self, actor: Actor) -> Operations:
        """What an actor can do without any transport."""
        return Operations(self.gateway.client, actor.principal)

    def change(self, actor: Actor) -> None:
        """Another attempt of the actor's running job begins."""
        self.engines.run(actor.changing, self._epochs[actor])

    def enqueue(self, actor: Actor, job_id: str) -> None:
        """One more job of the actor's waits."""
        self.engines.enqueue(job_id, ACTORS.index(actor), **_fields(actor))

    async def until_has(self, actor: Actor, job_id: str) -> None:
        """Returns when the gateway has read of a job."""
        async with asyncio.timeout(PATIENCE):
            while await self.gateway.client.get_job(job_id, tenant=actor.principal.tenant) is None:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)

    async def belongings(self, actor: Actor) -> tuple[object, ...]:
        """All that is the actor's, as it stands in the log: compared before and after something that must not touch it."""
        topics = self.log.topics
        records = [
            (record.topic, record.partition, record.offset)
            for name in (topics.jobs_name(self.engines.worker), topics.job_state.name, topics.control.name)
            for record in self.log.cluster.topic_records(name)
            if actor.secret.encode() in (record.value or b"") or actor.token.encode() in (record.key or b"")
        ]
        memory = await self.gateway.client.memory(tenant=actor.principal.tenant).read(actor.user, CONVERSATION)
        return records, [(entry.id, entry.content) for entry in memory.entries], memory.version


@contextlib.asynccontextmanager
async def tenants(folder: Path) -> AsyncIterator[Tenants]:
    """All actors with a job that has failed, one that waits, one that runs, and a conversation."""
    log = WrittenLog()
    engines = Engines(log)
    engines.define(kind="digest")
    epochs = {}
    for partition, actor in enumerate(ACTORS):
        for job_id in (actor.failed, actor.waiting, actor.changing):
            engines.enqueue(job_id, partition, **_fields(actor))
        epoch = epochs[actor] = engines.claim("one", -1, partition)
        for job_id in (actor.failed, actor.changing):
            engines.run(job_id, epoch)
        engines.fail(actor.failed, message=actor.secret)
    async with contextlib.AsyncExitStack() as stack:
        known = {actor.token: actor.principal for actor in ACTORS}
        gateway = await stack.enter_async_context(served(log, folder, known))
        # No engine is up: who waits for the end of a job would wait in vain.
        gateway.app.state.gateway.stop_waiting()
        for actor in ACTORS:
            memory = gateway.client.memory(tenant=actor.principal.tenant)
            await memory.append(actor.user, CONVERSATION, [NewEntry(role="user", content=actor.secret, id="1")])
        http = {actor.token: await stack.enter_async_context(gateway.http(actor.token)) for actor in ACTORS}
        yield Tenants(gateway, log, engines, epochs, http, folder, stack)


def _fields(actor: Actor) -> dict[str, Any]:
    """What a job of the actor's has."""
    return {
        "tenant": actor.principal.tenant,
        "args": {"to": [actor.secret]},
        "ctx": {"userId": actor.user, "conversationId": CONVERSATION},
    }
