"""Where in the log a watcher of jobs stands: a text that every view of the same log understands, whoever made it."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from typing import Final
from zlib import crc32

from headrace.core.topics import Topics
from headrace.errors import ArgumentsInvalid
from headrace.ports import TopicPartition

LONGEST_TOKEN: Final = 32 * 1024
_VERSION: Final = 1
_MOST_PARTITIONS: Final = 10_000
_STATE: Final = ""
"""Stands for `job-state`, beside the names of workers."""


def encode_token(topics: Topics, positions: Mapping[TopicPartition, int]) -> str:
    """The token of a watcher that was told of everything below these offsets.

    It names no tenant and no job. It says how far the queue of each worker was read, and so the workers' names and about how much
    they have to do in all: whoever is given it may read that.
    """
    offsets: dict[str, dict[int, int]] = {}
    for partition, offset in positions.items():
        worker = _STATE if partition.topic == topics.job_state.name else topics.worker_of(partition.topic)
        if worker is not None:
            offsets.setdefault(worker, {})[partition.partition] = offset
    body = bytearray([_VERSION])
    for worker, known in sorted(offsets.items()):
        name, count = worker.encode(), max(known) + 1
        body += _number(len(name)) + name + _number(count)
        for partition_number in range(count):
            body += _number(known.get(partition_number, 0))
    return urlsafe_b64encode(bytes(body) + _checksum(topics, bytes(body))).decode().rstrip("=")


def decode_token(topics: Topics, token: str) -> dict[TopicPartition, int]:
    """The offsets that `encode_token` was given.

    Raises:
        ArgumentsInvalid: it is no token, or one of another namespace.
    """
    try:
        if len(token) > LONGEST_TOKEN:
            raise ValueError
        raw = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
        body, checksum = raw[:-4], raw[-4:]
        if len(checksum) != 4 or checksum != _checksum(topics, body) or body[0] != _VERSION:
            raise ValueError
        return dict(_positions(topics, body))
    except (ValueError, IndexError):
        raise ArgumentsInvalid(
            "The id to go on from is none that this stream gave: leave it out to be told of what changes from now on."
        ) from None


def _positions(topics: Topics, body: bytes) -> Iterator[tuple[TopicPartition, int]]:
    at = 1
    while at < len(body):
        length, at = _read_number(body, at)
        worker, at = body[at : at + length].decode(), at + length
        count, at = _read_number(body, at)
        if count > _MOST_PARTITIONS:
            raise ValueError
        topic = topics.job_state.name if worker == _STATE else topics.jobs_name(worker)
        for number in range(count):
            offset, at = _read_number(body, at)
            yield TopicPartition(topic, number), offset


def _checksum(topics: Topics, body: bytes) -> bytes:
    """Against what was cut off on its way, and tokens of other namespaces. It keeps nothing secret, and
    anybody can make it: who makes up a token is told of no more than who has one."""
    return crc32(topics.namespace.encode() + b"\0" + body).to_bytes(4, "big")


def _number(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the highest bit says that more follow."""
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def _read_number(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte <= 0x7F:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError
