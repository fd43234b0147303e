"""Says in the log that an engine is gone, when nothing of it runs any more (rule R2 of the ownership protocol).

It reads one JSON object from its standard input: what the engine held, as it told its supervisor. First each claim is released;
then the engine is taken out of its groups, so that they deal out its partitions at once. If one fails, the other is done still.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any, Literal

from pydantic import BaseModel

from headrace.codec import encode
from headrace.core.records import lease_key
from headrace.errors import HeadraceError
from headrace.kafka.leaving import leave_groups
from headrace.kafka.log import KafkaLog
from headrace.models import ReleaseRecord
from headrace.ports import AppendFailed, NewRecord, TopicPartition
from headrace.settings import Settings, load_settings
from headrace.supervisor.told import Claim

_logger = logging.getLogger("headrace.supervisor")

# A claim lapses by itself soon after; so does a membership. Each step is over some seconds later at most, and all of them
# before the supervisor ends this process after a minute.
_RELEASE_SECONDS = 28.0
_LEAVE_SECONDS = 20.0
_STOP_SECONDS = 2.0


class LastWill(BaseModel):
    """What a dead engine left.

    Attributes:
        topic: name of `job-state`.
        reason: `died` counts against the jobs that ran then, `stopped` does not.
        members: its member id in each of its groups; empty where it was joining and had told none.
        client_id: of its members of groups; empty if it did not say.
    """

    bootstrap_servers: str
    topic: str
    instance_id: str
    reason: Literal["died", "stopped"]
    claims: list[Claim]
    members: dict[str, str]
    client_id: str = ""


async def release(will: LastWill, log: Any) -> int:
    """Writes the release of each claim; how many are acknowledged.

    A release of an epoch that has been superseded is void for every reader: it does no harm.

    Raises:
        HeadraceError, TimeoutError: no broker can be reached.
    """
    if not will.claims:
        return 0
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _RELEASE_SECONDS
    writer = log.writer()
    async with asyncio.timeout_at(deadline):
        await writer.start()
    try:
        records = [_release(will, claim) for claim in will.claims]
        outcomes = await writer.append_all(records, timeout=deadline - loop.time())
    finally:
        await writer.stop(timeout=_STOP_SECONDS)
    failed = [outcome.reason for outcome in outcomes if isinstance(outcome, AppendFailed)]
    if failed:
        _logger.warning("%d claims of a dead engine could not be released: %s", len(failed), failed[0])
    return len(outcomes) - len(failed)


def _release(will: LastWill, claim: Claim) -> tuple[TopicPartition, NewRecord]:
    record = ReleaseRecord(
        worker_name=claim.worker,
        partition=claim.partition,
        instance_id=claim.lease,
        epoch=claim.epoch,
        reason=will.reason,
    )
    key = lease_key(claim.worker, claim.partition, claim.lease)
    return TopicPartition(will.topic, claim.state_partition), NewRecord(key, encode(record))


async def perform(will: LastWill, settings: Settings) -> None:
    """Releases what the engine held, then takes it out of its groups, whatever became of the first.

    Raises:
        HeadraceError, TimeoutError: why one of both could not be done; the other one is done if it can be.
    """
    log = KafkaLog(settings)
    try:
        try:
            released = await release(will, log)
        finally:
            await log.close()
    finally:
        async with asyncio.timeout(_LEAVE_SECONDS):
            await leave_groups(settings, will.members, will.client_id)
    _logger.info("engine %s is gone: %d claims released, %d groups left", will.instance_id, released, len(will.members))


def main() -> int:
    """The exit code."""
    will = LastWill.model_validate_json(sys.stdin.buffer.read())
    settings = load_settings(bootstrap_servers=will.bootstrap_servers)
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    try:
        asyncio.run(perform(will, settings))
    except (HeadraceError, TimeoutError) as error:
        # Others wait for its lease to lapse, and its groups for its session to end, and no longer.
        _logger.warning("engine %s could not be taken out wholly: %s", will.instance_id, str(error) or "no answer in time")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
