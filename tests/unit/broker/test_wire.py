"""A peer that answers too slowly, or never ends, does not hold a connection."""

from __future__ import annotations

import socket
import threading
import time

from headrace.broker.readiness import describe_cluster


def test_a_peer_that_sends_a_byte_at_a_time_is_given_up() -> None:
    gone = threading.Event()

    def answer_slowly(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        with peer:
            try:
                peer.sendall((1_000).to_bytes(4))
                while not gone.wait(0.05):
                    peer.sendall(b"\0")
            except OSError:
                gone.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer_slowly, args=(listener,))
        thread.start()
        started = time.monotonic()
        try:
            assert describe_cluster(f"127.0.0.1:{listener.getsockname()[1]}", timeout_seconds=0.5) is None
            assert time.monotonic() - started < 20
        finally:
            gone.set()
            thread.join()
