"""Asking the process that runs a cluster to stop, kill or start one of its nodes.

The nodes are children of that process, and end with it; so a command that concerns one of them is told to it: one line of
JSON on a connection of the loopback interface, with a token that stands in the folder's note and that others cannot read.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import secrets
import signal
import socket
import socketserver
import threading
from dataclasses import asdict
from typing import Any, Literal

from headrace.broker.cluster import LocalCluster, NodeState
from headrace.broker.configuration import HOST
from headrace.broker.discovery import BrokerNote
from headrace.errors import LocalBrokerError

Action = Literal["states", "start", "stop", "kill", "end"]

LONGEST_LINE_BYTES = 64 * 1024
CONNECT_SECONDS = 5.0
# A node that is started may take a minute to serve, and one that is stopped ten seconds to end.
ANSWER_SECONDS = 90.0
# How soon it notices that it is to end.
POLL_SECONDS = 0.1

logger = logging.getLogger(__name__)


class NodeControl:
    """Takes what is asked of a cluster, from its making until `close`.

    Attributes:
        address: host:port where it listens.
        token: what those who ask must show.
    """

    def __init__(self, cluster: LocalCluster) -> None:
        self.token = secrets.token_urlsafe(24)
        self._server = _Server(cluster, self.token)
        self.address = f"{HOST}:{self._server.server_address[1]}"
        serve = self._server.serve_forever
        self._thread = threading.Thread(target=serve, args=(POLL_SECONDS,), name="headrace-broker-control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Takes no more, and leaves what is being done alone."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, cluster: LocalCluster, token: str) -> None:
        super().__init__((HOST, 0), _Request)
        self.cluster = cluster
        self.token = token

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the signature is socketserver's
        # Whoever asked has gone, or what it sent was no request of ours.
        logger.debug("a request about the broker's nodes failed", exc_info=True)


class _Request(socketserver.StreamRequestHandler):
    timeout = ANSWER_SECONDS

    def handle(self) -> None:
        assert isinstance(self.server, _Server)
        asked = json.loads(self.rfile.readline(LONGEST_LINE_BYTES))
        if not hmac.compare_digest(str(asked.get("token")).encode(), self.server.token.encode()):
            return
        try:
            answer = _do(self.server.cluster, asked.get("action"), asked.get("node"))
        except (LocalBrokerError, OSError) as error:
            answer = {"error": str(error)}
        self.wfile.write(json.dumps(answer).encode() + b"\n")


def _do(cluster: LocalCluster, action: Any, number: Any) -> dict[str, Any]:
    match action:
        case "start":
            cluster.start_node(int(number))
        case "stop":
            cluster.stop_node(int(number))
        case "kill":
            cluster.kill_node(int(number))
        case "end":
            # As Ctrl-C does it: the program that runs the broker has more to end than the broker.
            os.kill(os.getpid(), signal.SIGTERM)
            return {"pid": os.getpid()}
    return {"pid": os.getpid(), "states": [asdict(state) for state in cluster.states()]}


def ask(note: BrokerNote, action: Action, node: int | None = None) -> list[NodeState]:
    """Have something done by the process that runs a broker. Blocks until it is done, for a start some seconds.

    Args:
        note: what the folder knows of that broker.
        action: `states` looks only; `start`, `stop` and `kill` concern one node; `end` asks the whole process to end, and
            does not wait for that.
        node: its number, from 1.

    Returns:
        How each node is doing then; nothing after `end`.

    Raises:
        LocalBrokerError: the process is gone or is of another kind, or what was asked for cannot be done.
    """
    if note.control is None:
        raise LocalBrokerError(f"The broker at {note.bootstrap_servers} ({note.kind}) has no nodes that can be told what to do.")
    host, _, port = note.control.rpartition(":")
    request = {"token": note.control_token, "action": action, "node": node}
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as answers:
                answer = json.loads(answers.readline(LONGEST_LINE_BYTES))
    except (OSError, ValueError) as error:
        raise LocalBrokerError(
            f"The process {note.pid}, which ran the broker of this folder, does not answer: {error}."
        ) from error
    if "error" in answer:
        raise LocalBrokerError(answer["error"])
    return [NodeState(**state) for state in answer.get("states", [])]
