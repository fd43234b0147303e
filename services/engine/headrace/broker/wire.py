"""The few requests of Kafka's protocol that tell whether a broker is ready: plain sockets, no event loop.

A broker's readiness is waited for where no event loop runs, hundreds of times a second; a client library would start
tasks, retry by itself and hide which part does not answer yet. Only fixed-size encodings are used, in versions that Kafka
since 2.0 and Redpanda speak.
"""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass
from types import TracebackType

FIND_COORDINATOR = 10
INIT_PRODUCER_ID = 22
METADATA = 3
OFFSET_FETCH = 9

GROUP_COORDINATOR = 0
TRANSACTION_COORDINATOR = 1

MAXIMUM_ANSWER_BYTES = 1024 * 1024


class WireError(Exception):
    """What came back is not an answer of Kafka's protocol."""


@dataclass(frozen=True, slots=True)
class ClusterDescription:
    """What a broker says about its cluster: its id, and the numbers of the brokers that take requests."""

    cluster_id: str | None
    broker_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Coordinator:
    """Which broker looks after a group or a transactional id; `error_code` is 0 when that is known."""

    error_code: int
    host: str
    port: int


class BrokerConnection:
    """One connection, one request at a time. All methods raise OSError or WireError when nothing sensible answers.

    The timeout is for the connection as a whole: also a peer that sends one byte at a time cannot hold it for longer.
    """

    def __init__(self, host: str, port: int, *, timeout_seconds: float) -> None:
        self._deadline = time.monotonic() + timeout_seconds
        self._socket = socket.create_connection((host, port), timeout=timeout_seconds)
        self._correlation_id = 0

    def __enter__(self) -> BrokerConnection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()

    def describe_cluster(self) -> ClusterDescription:
        """The cluster's id and its brokers."""
        # No topics are asked for, and none may be created.
        answer = self._request(METADATA, 4, struct.pack(">ib", 0, 0))
        answer.skip(4)
        broker_ids = []
        for _ in range(answer.int32()):
            broker_ids.append(answer.int32())
            answer.string()
            answer.skip(4)
            answer.string()
        return ClusterDescription(answer.string(), tuple(broker_ids))

    def find_coordinator(self, key: str, kind: int) -> Coordinator:
        """The broker that looks after a group (`GROUP_COORDINATOR`) or a transactional id."""
        answer = self._request(FIND_COORDINATOR, 1, _string(key) + struct.pack(">b", kind))
        answer.skip(4)
        error_code = answer.int16()
        answer.string()
        answer.skip(4)
        return Coordinator(error_code, answer.string() or "", answer.int32())

    def fetch_offsets(self, group: str) -> int:
        """Ask for all of a group's offsets. Returns the error code; 0 means that its coordinator serves."""
        answer = self._request(OFFSET_FETCH, 5, _string(group) + struct.pack(">i", -1))
        answer.skip(4)
        for _ in range(answer.int32()):
            answer.string()
            for _ in range(answer.int32()):
                answer.skip(4 + 8 + 4)
                answer.string()
                answer.skip(2)
        return answer.int16()

    def init_producer_id(self, transactional_id: str) -> int:
        """Ask for a producer id. Returns the error code; 0 means that transactions and idempotent producers work."""
        answer = self._request(INIT_PRODUCER_ID, 1, _string(transactional_id) + struct.pack(">i", 10_000))
        answer.skip(4)
        return answer.int16()

    def _request(self, api: int, version: int, body: bytes) -> _Answer:
        self._correlation_id += 1
        header = struct.pack(">hhi", api, version, self._correlation_id) + _string("headrace")
        self._allow_what_is_left()
        self._socket.sendall(struct.pack(">i", len(header) + len(body)) + header + body)
        (size,) = struct.unpack(">i", self._receive(4))
        if not 4 <= size <= MAXIMUM_ANSWER_BYTES:
            raise WireError(f"An answer of {size} bytes is not Kafka's.")
        answer = _Answer(self._receive(size))
        if answer.int32() != self._correlation_id:
            raise WireError("The answer belongs to another request.")
        return answer

    def _receive(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            self._allow_what_is_left()
            chunk = self._socket.recv(size - len(received))
            if not chunk:
                raise WireError("The connection was closed.")
            received += chunk
        return bytes(received)

    def _allow_what_is_left(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("The broker did not answer in time.")
        self._socket.settimeout(left)


class _Answer:
    """A cursor over the bytes of an answer."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._position = 0

    def skip(self, size: int) -> None:
        self._take(size)

    def int16(self) -> int:
        return int.from_bytes(self._take(2), signed=True)

    def int32(self) -> int:
        return int.from_bytes(self._take(4), signed=True)

    def string(self) -> str | None:
        size = self.int16()
        return None if size < 0 else self._take(size).decode("utf-8", "replace")

    def _take(self, size: int) -> bytes:
        end = self._position + size
        if end > len(self._content):
            raise WireError("The answer is shorter than it says.")
        taken = self._content[self._position : end]
        self._position = end
        return taken


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack(">h", len(encoded)) + encoded
