"""The files that a node finds at its first start."""

from __future__ import annotations

import base64
import hmac
import struct
from pathlib import Path

from headrace.broker.storage import (
    bootstrap_checkpoint,
    crc32c,
    format_log_directory,
    new_id,
    scram_credential,
    scram_credentials,
)

# What `kafka-storage format` of Kafka 4.3.1 wrote.
WRITTEN_BY_KAFKA = bytes.fromhex(
    "00000000000000000000004700000000028a963e1c002000000000000001a2034f2e5f000001a2034f2e5fffffffffffffff"
    "ffffffffffffff000000012a0000000800000003160000000000000000000000000000000000000001000000f10000000002"
    "4f1f6a2e000000000005000001a2034f2e8b000001a2034f2e8bffffffffffffffffffffffffffff000000063a000000012e"
    "010c00116d657461646174612e76657273696f6e001e00005a000002014e010c0021656c696769626c652e6c65616465722e"
    "7265706c696361732e76657273696f6e00010000340000040128010c000e67726f75702e76657273696f6e00010000340000"
    "060128010c000e73686172652e76657273696f6e0001000038000008012c010c001073747265616d732e76657273696f6e00"
    "0100004000000a0134010c00147472616e73616374696f6e2e76657273696f6e0002000000000000000000070000003f0000"
    "000002d308f2a9002000000000000001a2034f2e8f000001a2034f2e8fffffffffffffffffffffffffffff000000011a0000"
    "0008000000040600000000"
)


def batches(checkpoint: bytes) -> list[bytes]:
    found = []
    while checkpoint:
        (size,) = struct.unpack_from(">i", checkpoint, 8)
        found.append(checkpoint[: 12 + size])
        checkpoint = checkpoint[12 + size :]
    return found


def without_times(batch: bytes) -> bytes:
    """The batch without its checksum and its two timestamps, which differ from one run to the next."""
    return batch[:17] + batch[21:27] + batch[43:]


def test_the_checkpoint_is_what_kafkas_own_formatter_writes() -> None:
    ours = batches(bootstrap_checkpoint(1_700_000_000_000))
    theirs = batches(WRITTEN_BY_KAFKA)
    assert [without_times(batch) for batch in ours] == [without_times(batch) for batch in theirs]


def test_checksums_are_kafkas() -> None:
    for batch in batches(WRITTEN_BY_KAFKA) + batches(bootstrap_checkpoint(1_700_000_000_000)):
        assert crc32c(batch[21:]) == struct.unpack_from(">I", batch, 17)[0]


def test_users_follow_the_features() -> None:
    plain = batches(bootstrap_checkpoint(0))
    with_users = batches(bootstrap_checkpoint(0, scram_credentials({"alice": "secret"})))
    assert struct.unpack_from(">i", with_users[1], 57) == (8,)
    assert b"alice" in with_users[1]
    assert b"secret" not in with_users[1]
    # The footer's offset comes after them.
    assert struct.unpack_from(">q", plain[2])[0] + 2 == struct.unpack_from(">q", with_users[2])[0]


def test_a_credential_agrees_with_the_exchange_of_rfc_7677() -> None:
    credential = scram_credential("user", "pencil", 1, base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="))
    exchange = (
        "n=user,r=rOprNGfwEbeRWgbNEkqO,"
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    signature = hmac.digest(credential.server_key, exchange.encode(), "sha256")
    assert base64.b64encode(signature) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_an_id_never_looks_like_an_option() -> None:
    ids = {new_id() for _ in range(2_000)}
    assert len(ids) == 2_000
    assert not [text for text in ids if text.startswith("-") or len(text) != 22]


def test_a_prepared_directory_is_left_as_it_is(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    format_log_directory(directory, cluster_id="first", node_id=1, now=1.0)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert set(before) == {"meta.properties", "bootstrap.checkpoint"}
    format_log_directory(directory, cluster_id="second", node_id=2, now=2.0)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_a_directory_that_was_cut_short_is_prepared_again(tmp_path: Path) -> None:
    (tmp_path / "bootstrap.checkpoint").write_bytes(b"half")
    format_log_directory(tmp_path, cluster_id="an-id", node_id=3, now=1.0)
    assert (tmp_path / "bootstrap.checkpoint").read_bytes() == bootstrap_checkpoint(1000)
    assert "cluster.id=an-id\nnode.id=3\n" in (tmp_path / "meta.properties").read_text()
