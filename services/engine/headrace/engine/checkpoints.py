"""What a holder writes down of its partition, so that a take-over costs seconds however long jobs run (rule K1)."""

from __future__ import annotations

import logging
import zlib
from base64 import b64decode, b64encode
from typing import Any

import orjson
from pydantic import TypeAdapter

from headrace.codec import decode_object
from headrace.core.records import checkpoint_key
from headrace.core.snapshots import CONTINUED, crashed
from headrace.core.watermark import Watermark
from headrace.engine.partition import OwnedPartition
from headrace.errors import RecordUndecodable
from headrace.models import BegunJob, CheckpointRecord
from headrace.ports import NewRecord

_logger = logging.getLogger(__name__)

_LARGEST_BYTES = 1024 * 1024
_PLAIN_BYTES = 64 * 1024
_MOST_UNPACKED_BYTES = 256 * 1024 * 1024
# Ten thousand jobs are some megabytes, and take a tenth of a second: so often then, and else with each renewal.
_SECONDS_FOR_EACH_BYTE = 5.0 / (1024 * 1024)


def make_checkpoint(partition: OwnedPartition, covers: int) -> NewRecord | None:
    """The checkpoint of a partition as it stands; None where it would be too large to be written again and again.

    It tells the partition when the next one is due: the larger it is, the longer that may take.

    Args:
        covers: offset in `job-state` below which every record is taken into account: one past the last acknowledgement that has
            come back, since acknowledgements come in the order of the log.
    """
    ended = Watermark(partition.watermark.position)
    for first, last in partition.watermark.ranges():
        ended.skip(first, last + 1)
    for offset in partition.ended_before:
        ended.finish(offset)
    worker, number, lease = partition.recovery.worker, partition.source.partition, partition.lease_name
    begun = _begun(partition)
    jobs = orjson.dumps(begun)
    partition.checkpoint_pause = len(jobs) * _SECONDS_FOR_EACH_BYTE
    packed = len(jobs) > _PLAIN_BYTES
    record = CheckpointRecord(
        worker_name=worker,
        partition=number,
        instance_id=lease,
        epoch=partition.writer.epoch,
        covers=covers,
        watermark=ended.position,
        ranges=ended.ranges(),
        begun=[],
        packed=b64encode(zlib.compress(jobs, 1)).decode() if packed else None,
    ).to_wire()
    if not packed:
        record["begun"] = begun
    value = orjson.dumps(record)
    if len(value) > _LARGEST_BYTES:
        _logger.warning(
            "partition %d of %s has %d jobs that were begun: no checkpoint holds them, and to take them over takes long",
            *(number, worker, len(begun)),
        )
        return None
    return NewRecord(checkpoint_key(worker, number, lease), value)


def begun_jobs(checkpoint: CheckpointRecord) -> list[BegunJob]:
    """The jobs of a checkpoint.

    Raises:
        RecordUndecodable: what is packed in it is damaged.
    """
    if checkpoint.packed is None:
        return checkpoint.begun
    try:
        unpacked = zlib.decompressobj().decompress(b64decode(checkpoint.packed, validate=True), _MOST_UNPACKED_BYTES)
        return _BEGUN.validate_json(unpacked)
    except (ValueError, zlib.error) as error:
        raise RecordUndecodable(f"the jobs in a checkpoint cannot be unpacked: {error}") from None


_BEGUN = TypeAdapter(list[BegunJob])


def _begun(partition: OwnedPartition) -> list[dict[str, Any]]:
    """The jobs that were begun, by this instance or before it, as the last acknowledgement has them.

    Also those that have ended, until `ended-keys` has what it must have of them.
    """
    begun = []
    for offset, known in (*partition.begun.items(), *partition.untold.items()):
        fields = known.fields if known.fields is not None else _continued(known.snapshot)
        if fields is not None:
            state = crashed(fields) if known.died else dict(fields)
            begun.append({"id": known.job_id.decode(), "offset": offset, "state": state})
    for offset, work in partition.works.items():
        if work.acknowledged is not None:
            begun.append({"id": work.key.decode(), "offset": offset, "state": work.acknowledged.fields})
    return begun


def _continued(snapshot: bytes | None) -> dict[str, object] | None:
    try:
        fields = decode_object(snapshot)
    except RecordUndecodable:
        return None
    return {name: fields[name] for name in CONTINUED if name in fields}
