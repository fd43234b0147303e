"""What a Kafka node finds in its data directory at its first start.

Kafka's own formatter is a Java program that takes more than a second; what it writes is small: `meta.properties` and a
`bootstrap.checkpoint`, a snapshot of the metadata log with the feature levels (and, when asked for, SCRAM credentials).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import struct
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

# The levels that Kafka 4.3's own formatter chooses for release 4.3.
FEATURE_LEVELS: Mapping[str, int] = {
    "metadata.version": 30,
    "eligible.leader.replicas.version": 1,
    "group.version": 1,
    "share.version": 1,
    "streams.version": 1,
    "transaction.version": 2,
}

FEATURE_LEVEL_RECORD = 12
SCRAM_CREDENTIAL_RECORD = 11
SNAPSHOT_HEADER_KEY = b"\x00\x00\x00\x03"
SNAPSHOT_FOOTER_KEY = b"\x00\x00\x00\x04"
CONTROL_BATCH = 0x20
LEADER_EPOCH = 0
SCRAM_ITERATIONS = 4096
SCRAM_DIGESTS: Mapping[int, str] = {1: "sha256", 2: "sha512"}


@dataclass(frozen=True, slots=True)
class ScramCredential:
    """A user's salted password, as Kafka keeps it: the password itself cannot be read from it."""

    user: str
    mechanism: int
    salt: bytes
    stored_key: bytes
    server_key: bytes


def new_id() -> str:
    """A random id in Kafka's form. One that starts with `-` is never made: Kafka's tools take it for an option."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text


def scram_credentials(users: Mapping[str, str]) -> tuple[ScramCredential, ...]:
    """Credentials for SCRAM-SHA-256 (mechanism 1) and SCRAM-SHA-512 (2) for each user and password."""
    return tuple(
        scram_credential(user, password, mechanism, os.urandom(16))
        for user, password in users.items()
        for mechanism in SCRAM_DIGESTS
    )


def scram_credential(user: str, password: str, mechanism: int, salt: bytes) -> ScramCredential:
    """What RFC 5802 keeps of a password, for one mechanism (1: SCRAM-SHA-256, 2: SCRAM-SHA-512)."""
    digest = SCRAM_DIGESTS[mechanism]
    salted = hashlib.pbkdf2_hmac(digest, password.encode(), salt, SCRAM_ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", digest)
    return ScramCredential(
        user=user,
        mechanism=mechanism,
        salt=salt,
        stored_key=hashlib.new(digest, client_key).digest(),
        server_key=hmac.digest(salted, b"Server Key", digest),
    )


def format_log_directory(
    directory: Path, *, cluster_id: str, node_id: int, now: float, credentials: Iterable[ScramCredential] = ()
) -> None:
    """Prepare an empty directory for a node. A directory that is already prepared is left as it is.

    Args:
        directory: the node's `log.dirs`.
        cluster_id: the id that all nodes of the cluster share, from `new_id`.
        node_id: the node's own number.
        now: seconds since 1970, noted in the checkpoint.
        credentials: users for SCRAM.
    """
    properties = directory / "meta.properties"
    if properties.exists():
        return
    directory.mkdir(parents=True, exist_ok=True)
    checkpoint = bootstrap_checkpoint(int(now * 1000), credentials)
    _write_whole(directory / "bootstrap.checkpoint", checkpoint)
    # Last: it is what says that the directory is prepared.
    text = f"version=1\ncluster.id={cluster_id}\nnode.id={node_id}\ndirectory.id={new_id()}\n"
    _write_whole(properties, text.encode())


def _write_whole(path: Path, content: bytes) -> None:
    draft = path.with_name(path.name + ".draft")
    draft.write_bytes(content)
    draft.replace(path)


def bootstrap_checkpoint(timestamp_ms: int, credentials: Iterable[ScramCredential] = ()) -> bytes:
    """The bytes of a snapshot with three batches: a header, the metadata records, a footer."""
    records = [_feature_level(name, level) for name, level in FEATURE_LEVELS.items()]
    records += [_scram_record(credential) for credential in credentials]
    header_value = struct.pack(">hqB", 0, 0, 0)
    footer_value = struct.pack(">hB", 0, 0)
    return b"".join(
        (
            _batch(0, timestamp_ms, CONTROL_BATCH, [(SNAPSHOT_HEADER_KEY, header_value)]),
            _batch(1, timestamp_ms, 0, [(None, value) for value in records]),
            _batch(1 + len(records), timestamp_ms, CONTROL_BATCH, [(SNAPSHOT_FOOTER_KEY, footer_value)]),
        )
    )


def _feature_level(name: str, level: int) -> bytes:
    return _metadata_record(FEATURE_LEVEL_RECORD, _compact_bytes(name.encode()) + struct.pack(">h", level))


def _scram_record(credential: ScramCredential) -> bytes:
    body = (
        _compact_bytes(credential.user.encode())
        + struct.pack(">b", credential.mechanism)
        + _compact_bytes(credential.salt)
        + _compact_bytes(credential.stored_key)
        + _compact_bytes(credential.server_key)
        + struct.pack(">i", SCRAM_ITERATIONS)
    )
    return _metadata_record(SCRAM_CREDENTIAL_RECORD, body)


def _metadata_record(record_type: int, body: bytes) -> bytes:
    # Frame version 1, the type, the type's version 0, its fields, no tagged fields.
    return _unsigned_varint(1) + _unsigned_varint(record_type) + _unsigned_varint(0) + body + _unsigned_varint(0)


def _batch(base_offset: int, timestamp_ms: int, attributes: int, records: list[tuple[bytes | None, bytes]]) -> bytes:
    """One record batch of format 2."""
    encoded = b"".join(_record(index, key, value) for index, (key, value) in enumerate(records))
    checked = struct.pack(">hiqqqhii", attributes, len(records) - 1, timestamp_ms, timestamp_ms, -1, -1, -1, len(records))
    checked += encoded
    body = struct.pack(">ibI", LEADER_EPOCH, 2, crc32c(checked)) + checked
    return struct.pack(">qi", base_offset, len(body)) + body


def _record(offset_delta: int, key: bytes | None, value: bytes) -> bytes:
    body = (
        b"\x00"  # attributes
        + _varint(0)  # the same time as the batch's
        + _varint(offset_delta)
        + (_varint(-1) if key is None else _varint(len(key)) + key)
        + _varint(len(value))
        + value
        + _varint(0)  # no headers
    )
    return _varint(len(body)) + body


def _compact_bytes(value: bytes) -> bytes:
    return _unsigned_varint(len(value) + 1) + value


def _varint(number: int) -> bytes:
    return _unsigned_varint((number << 1) ^ (number >> 31))


def _unsigned_varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(0x80 | (number & 0x7F))
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _crc32c_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


CRC32C_TABLE = _crc32c_table()


def crc32c(content: bytes) -> int:
    """The Castagnoli checksum that Kafka puts over every batch; a few hundred bytes, so plain Python will do."""
    value = 0xFFFFFFFF
    for byte in content:
        value = CRC32C_TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF
