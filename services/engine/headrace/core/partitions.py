"""Which partition a record belongs to. headrace computes it and gives it explicitly; no client's partitioner is relied on."""

from __future__ import annotations

from zlib import crc32


def key_partition(key: str, count: int) -> int:
    """The partition of a record with that key, in a topic of `count` partitions: CRC-32 of the key's UTF-8 bytes, modulo."""
    return crc32(key.encode()) % count


def state_partition(worker: str, partition: int, count: int) -> int:
    """The partition of `job-state` that holds the state of all jobs of one partition of a worker.

    Neighbouring partitions of a worker get neighbouring state partitions, so that a worker's work spreads.
    """
    return (crc32(worker.encode()) + partition) % count
