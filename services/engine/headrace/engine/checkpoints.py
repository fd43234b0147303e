"""What a holder writes down of its partition, so that a take-over costs seconds however long jobs run (rule K1)."""

from __future__ import annotations

from headrace.codec import decode_object, encode
from headrace.core.records import checkpoint_key
from headrace.core.snapshots import CONTINUED, crashed
from headrace.core.watermark import Watermark
from headrace.engine.partition import OwnedPartition
from headrace.errors import RecordUndecodable
from headrace.models import BegunJob, CheckpointRecord
from headrace.ports import NewRecord

_LARGEST_BYTES = 1024 * 1024


def make_checkpoint(partition: OwnedPartition, covers: int) -> NewRecord | None:
    """The checkpoint of a partition as it stands; None where it would be too large to be written again and again.

    Args:
        covers: offset in `job-state` below which every record is taken into account: one past the last acknowledgement that has
            come back, since acknowledgements come in the order of the log.
    """
    ended = Watermark(partition.watermark.position)
    for first, last in partition.watermark.ranges():
        ended.skip(first, last + 1)
    for offset in partition.ended_before:
        ended.finish(offset)
    worker, number, instance_id = partition.recovery.worker, partition.source.partition, partition.writer.instance_id
    record = encode(
        CheckpointRecord(
            worker_name=worker,
            partition=number,
            instance_id=instance_id,
            epoch=partition.writer.epoch,
            covers=covers,
            watermark=ended.position,
            ranges=ended.ranges(),
            begun=_begun(partition),
        )
    )
    return NewRecord(checkpoint_key(worker, number, instance_id), record) if len(record) <= _LARGEST_BYTES else None


def _begun(partition: OwnedPartition) -> list[BegunJob]:
    """The jobs that were begun, by this instance or before it, as the last acknowledgement has them.

    Also those that have ended, until `ended-keys` has what it must have of them.
    """
    begun = []
    for offset, known in (*partition.begun.items(), *partition.untold.items()):
        fields = known.fields if known.fields is not None else _continued(known.snapshot)
        if fields is not None:
            state = crashed(fields) if known.died else dict(fields)
            begun.append(BegunJob.model_construct(id=known.job_id.decode(), offset=offset, state=state))
    for offset, work in partition.works.items():
        if work.acknowledged is not None:
            begun.append(BegunJob.model_construct(id=work.key.decode(), offset=offset, state=work.acknowledged.fields))
    return begun


def _continued(snapshot: bytes | None) -> dict[str, object] | None:
    try:
        fields = decode_object(snapshot)
    except RecordUndecodable:
        return None
    return {name: fields[name] for name in CONTINUED if name in fields}
