"""The load of a chaos run, in a process of its own: `python -m chaos.loader` enqueues jobs at a steady rate for some minutes.

Of each job whose acceptance was acknowledged it notes the id, at once. Where no acknowledgement came it repeats the call if it
gave an idempotency key, and otherwise enqueues another job only if the first is certainly not in the log.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import itertools
import os
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos.ledger import Accepted, Ledger, now
from chaos.workload import LEDGER_VARIABLE, WORKERS, Keyed, Long, Plain, Poison, Short, Work, poison_jobs_end
from headrace import Client, EnqueueTimeout
from headrace.errors import BrokerError
from headrace.models import Job
from headrace.settings import load_settings

MOST_IN_FLIGHT = 400
KEYS = 24
# Of a hundred jobs that are not long, so many are of each worker.
SHARES = {Short: 60, Keyed: 25, Plain: 15}
DUPLICATES_IN_A_HUNDRED = 10
POISON_AT = (0.15, 0.5)
PAUSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Load:
    """How much is enqueued.

    Attributes:
        seconds: for how long.
        rate: jobs a second.
        long_rate: jobs of more than 40 s a second.
    """

    seconds: float
    rate: float
    long_rate: float
    seed: int


class Loader:
    """Enqueues one run's jobs."""

    def __init__(self, client: Client, ledger: Ledger, load: Load) -> None:
        self._client = client
        self._ledger = ledger
        self._load = load
        self._chance = random.Random(load.seed)
        self._numbers = itertools.count()
        self._room = asyncio.Semaphore(MOST_IN_FLIGHT)
        self._takes_keys = "idempotency_key" in inspect.signature(Client.enqueue).parameters

    async def run(self) -> None:
        """Returns when every job is accepted, or its sender knows that it will not find out."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._steadily(tasks, self._load.rate, self._send_any))
            tasks.create_task(self._steadily(tasks, self._load.long_rate, self._send_long))
            if poison_jobs_end():
                tasks.create_task(self._poison(tasks))

    async def _steadily(self, tasks: asyncio.TaskGroup, rate: float, send: Any) -> None:
        began = time.monotonic()
        for count in itertools.count():
            due = began + count / rate
            if due - began >= self._load.seconds:
                return
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self._room.acquire()
            tasks.create_task(self._with_room(send()))

    async def _with_room(self, sending: Any) -> None:
        try:
            await sending
        finally:
            self._room.release()

    async def _send_any(self) -> None:
        worker = self._chance.choices(list(SHARES), list(SHARES.values()))[0]
        key = f"key-{self._chance.randrange(KEYS)}" if worker is Keyed else ""
        seconds = self._chance.uniform(0.05, 0.15) if worker is Keyed else self._chance.uniform(0.05, 0.4)
        work = Work(seconds=round(seconds, 3), number=next(self._numbers), key=key)
        if self._takes_keys and self._chance.randrange(100) < DUPLICATES_IN_A_HUNDRED:
            await self._send_twice(worker, work)
        else:
            await self._send(worker, work)

    async def _send_long(self) -> None:
        await self._send(Long, Work(seconds=round(self._chance.uniform(41, 50), 3), number=next(self._numbers)))

    async def _poison(self, tasks: asyncio.TaskGroup) -> None:
        began = time.monotonic()
        for share in POISON_AT:
            await asyncio.sleep(max(0.0, began + share * self._load.seconds - time.monotonic()))
            tasks.create_task(self._send(Poison, Work(seconds=0.2, number=next(self._numbers))))

    async def _send_twice(self, worker: Any, work: Work) -> None:
        """The same request again: in the same moment, or up to some seconds later, when the first may be running or over."""
        key = f"request-{self._load.seed}-{work.number}"
        later = self._chance.choice((0.0, 0.0, self._chance.uniform(0, 5)))

        async def again() -> None:
            await asyncio.sleep(later)
            await self._send(worker, work, idempotency_key=key, duplicate=True)

        await asyncio.gather(self._send(worker, work, idempotency_key=key), again())

    async def _send(self, worker: Any, work: Work, *, duplicate: bool = False, **options: Any) -> None:
        while True:
            try:
                job: Job = await self._client.enqueue(worker, work, **options)
            except EnqueueTimeout as error:
                if error.may_be_accepted and not options:
                    return  # the log will tell
            except BrokerError:
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                self._ledger.note(Accepted(now(), job.id, job.worker_name, duplicate))
                return


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--long-rate", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    load = Load(options.seconds, options.rate, options.long_rate, options.seed)
    with Ledger(Path(os.environ[LEDGER_VARIABLE])) as ledger:
        async with Client(load_settings()) as client:
            for worker in WORKERS:
                client.define(worker().definition())
            await Loader(client, ledger, load).run()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
