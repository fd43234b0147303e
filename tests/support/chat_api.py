"""An HTTP server in a thread that speaks the chat part of OpenAI's API, and answers what a test tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One answer of the server. With `body` set, it is sent as it is."""

    content: str | None = None
    finish_reason: str = "stop"
    status: int = 200
    refusal: str | None = None
    choices: int = 1
    body: bytes | None = None
    hold: threading.Event | None = None

    def encoded(self) -> bytes:
        if self.body is not None:
            return self.body
        message = {"role": "assistant", "content": self.content, "refusal": self.refusal}
        choice = {"index": 0, "finish_reason": self.finish_reason, "message": message}
        answer = {"id": "a", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice] * self.choices}
        return json.dumps(answer if self.status == 200 else {"error": {"message": "told by the server"}}).encode()


@dataclass
class ChatApi:
    """The server: what it will answer, in turn (the last again and again), and what it was asked."""

    answers: list[Answer]
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def authorizations(self) -> list[str | None]:
        return [headers.get("authorization") for headers in self.headers]

    def next_answer(self) -> Answer:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextmanager
def chat_api(*answers: Answer) -> Iterator[ChatApi]:
    """Runs the server on a free port of the loopback."""
    api = ChatApi(list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            api.asked.append({"path": self.path, **json.loads(body)})
            api.headers.append({name.lower(): value for name, value in self.headers.items()})
            answer = api.next_answer()
            if answer.hold is not None:
                answer.hold.wait(30)
            encoded = answer.encoded()
            self.send_response(answer.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            # The library waits before it tries again, unless it is told how long.
            self.send_header("retry-after-ms", "1")
            self.end_headers()
            self.wfile.write(encoded)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """Says nothing of clients that have gone."""

    server = Server(("127.0.0.1", 0), Handler)
    api.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield api
    finally:
        for answer in answers:
            if answer.hold is not None:
                answer.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()
