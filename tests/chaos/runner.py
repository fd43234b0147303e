"""A chaos run: three brokers, some engines, a load, faults, then peace until every job has ended, and a verdict."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from chaos.brokers import Brokers
from chaos.faults import Faults
from chaos.fleet import Fleet, spawn
from chaos.ledger import Ledger, Poisoned, read_ledger
from chaos.logbook import Follower
from chaos.plan import plan
from chaos.verdict import Minimums, Verdict, judge
from chaos.workload import LEDGER_VARIABLE, WORKERS
from headrace.broker import LocalBroker, LocalBrokerOptions, start_local_broker
from headrace.core.topics import Topics
from headrace.errors import BrokerError
from headrace.kafka.log import KafkaLog
from headrace.settings import Settings, load_settings

TESTS = Path(__file__).resolve().parents[1]
NAMESPACE = "chaos"
PARTITIONS = 4
PEACE_SECONDS = 180.0
READY_SECONDS = 60.0
LOADER_SECONDS = 120.0
POLL_SECONDS = 0.2
# Kafka's own, and not the quick ones of a broker for development.
BROKER_TIMES = {"broker.session.timeout.ms": "9000", "broker.heartbeat.interval.ms": "2000"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a run is to be.

    Attributes:
        folder: where the ledger, and what the engines print, are put.
        rate: jobs a second; long_rate: those of more than 40 s.
    """

    minutes: float
    seed: int
    folder: Path
    engines: int = 3
    rate: float = 45.0
    long_rate: float = 0.4


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run's verdict, and what was seen on the way."""

    verdict: Verdict
    remarks: list[str]


async def run(options: Options, say: Callable[[str], None]) -> Outcome:
    """Does a whole run. Whatever it started is gone when it returns or raises."""
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / "ledger.jsonl"
    broker_options = LocalBrokerOptions(nodes=3, automatic_topic_creation=False, properties=BROKER_TIMES)
    with contextlib.ExitStack() as ends:
        say("starting three brokers")
        cache = load_settings().cache_directory
        broker = ends.enter_context(await asyncio.to_thread(start_local_broker, None, broker_options, cache_directory=cache))
        ledger = ends.enter_context(Ledger(path))
        environment = _environment(broker.bootstrap_servers, options.folder, path)
        settings = _settings(broker, options.folder)
        await _make_topics(settings)
        fleet = Fleet(environment, options.folder, ledger)
        ends.callback(fleet.end_all)
        for _ in range(options.engines):
            fleet.start()
        loader = _start_loader(options, environment)
        ends.enter_context(_ended(loader))
        return await _Run(options, settings, broker, fleet, ledger, path, loader, say).whole()


@dataclass(slots=True)
class _Run:
    """A run whose processes have been started."""

    options: Options
    settings: Settings
    broker: LocalBroker
    fleet: Fleet
    ledger: Ledger
    path: Path
    loader: subprocess.Popen[bytes]
    say: Callable[[str], None]

    async def whole(self) -> Outcome:
        chance = random.Random(self.options.seed + 1)
        faults = Faults(self.fleet, Brokers(self.broker), self.ledger, chance, self._say_when())
        minding = asyncio.create_task(faults.mind())
        try:
            await self._first_sign()
            await faults.carry_out(plan(self.options.seed, self.options.minutes))
            await self._loaded(faults)
            facts = await self._peace(faults)
        finally:
            minding.cancel()
            await asyncio.gather(minding, return_exceptions=True)
        entries = list(read_ledger(self.path))
        poisoned = {entry.pid for entry in entries if isinstance(entry, Poisoned)}
        faults.remarks += [
            f"the engine {pid} of {name} ended, and nobody had done anything to it; --keep keeps what it printed"
            for name, pid in faults.vanished
            if pid not in poisoned
        ]
        verdict = judge(entries, facts.book.facts(), Minimums.of(self.options.minutes), faults.misbehaved)
        return Outcome(verdict, faults.remarks)

    def _say_when(self) -> Callable[[str], None]:
        began = time.monotonic()
        return lambda line: self.say(f"{time.monotonic() - began:6.1f} s  {line}")

    async def _first_sign(self) -> None:
        """Waits until the first job runs."""
        deadline = time.monotonic() + READY_SECONDS
        while self.path.stat().st_size == 0:
            if time.monotonic() >= deadline:
                raise TimeoutError(
                    f"No job was accepted in {READY_SECONDS:g} s; {self.options.folder} has what the engines said."
                )
            await asyncio.sleep(POLL_SECONDS)

    async def _loaded(self, faults: Faults) -> None:
        try:
            code = await asyncio.to_thread(self.loader.wait, self.options.minutes * 60 + LOADER_SECONDS)
        except subprocess.TimeoutExpired:
            faults.misbehaved.append("the loader did not come to its end in time")
        else:
            if code:
                faults.misbehaved.append(f"the loader failed with {code}: what it did not note down was not judged")

    async def _peace(self, faults: Faults) -> Follower:
        """Waits until every job has ended, or for three minutes, then ends the engines in order."""
        faults.say("peace: the faults are over")
        follower = Follower(self.settings, [worker.name for worker in WORKERS])
        await follower.start()
        try:
            began = time.monotonic()
            await self._read(follower)
            left = follower.book.unfinished()
            while left and time.monotonic() < began + PEACE_SECONDS:
                faults.say(f"{left} jobs are left")
                await asyncio.sleep(5)
                await self._read(follower)
                left = follower.book.unfinished()
            faults.remarks.append(f"what the faults had left took {time.monotonic() - began:.0f} s of peace")
            faults.say("every job has ended" if not left else f"{left} jobs have not ended")
            ended = await asyncio.gather(*(self.fleet.stop(unit) for unit in list(self.fleet.units)))
            if not all(ended):
                faults.remarks.append("an engine did not end in time after the last SIGTERM")
            await self._read(follower)
            return follower
        finally:
            await follower.stop()

    async def _read(self, follower: Follower) -> None:
        try:
            async with asyncio.timeout(60):
                await follower.catch_up()
        except (BrokerError, TimeoutError) as error:
            self.say(f"the log cannot be read to its end now: {error!r}")


def _environment(servers: str, folder: Path, ledger: Path) -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH")))),
        "KAFKA_BOOTSTRAP_SERVERS": servers,
        "HEADRACE_NAMESPACE": NAMESPACE,
        "HEADRACE_DATA_DIRECTORY": str(folder / "data"),
        "HEADRACE_ENGINE_PARTITIONS": str(PARTITIONS),
        LEDGER_VARIABLE: str(ledger),
    }


def _settings(broker: LocalBroker, folder: Path) -> Settings:
    return load_settings(
        bootstrap_servers=broker.bootstrap_servers, namespace=NAMESPACE, data_directory=folder / "data", log_level="INFO"
    )


async def _make_topics(settings: Settings) -> None:
    """Makes the topics while all brokers are there: how many copies they have is decided now."""
    topics = Topics(NAMESPACE)
    log = KafkaLog(settings)
    try:
        await log.create_topics(
            [topics.workers, topics.job_state, topics.dead_letters, topics.memory]
            + [topics.jobs(worker.name, PARTITIONS) for worker in WORKERS]
        )
    finally:
        await log.close()


def _start_loader(options: Options, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    numbers = {
        "seconds": options.minutes * 60,
        "rate": options.rate,
        "long-rate": options.long_rate,
        "seed": options.seed,
    }
    arguments = [text for name, value in numbers.items() for text in (f"--{name}", f"{value}")]
    return spawn(["chaos.loader", *arguments], environment, options.folder / "loader.log")


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(30)
