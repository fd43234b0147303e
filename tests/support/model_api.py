"""An HTTP server that speaks OpenAI's API, and whose model calls one tool and then says what the tool answered."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Model:
    """A model that calls a tool.

    Attributes:
        url: what a client is given as `OPENAI_BASE_URL`.
        offered: the names of the tools of each request, in order.
    """

    def __init__(self, tool: str, arguments: dict[str, Any]) -> None:
        self.url = ""
        self.offered: list[list[str]] = []
        self._tool = tool
        self._arguments = json.dumps(arguments)

    def answer(self, path: str, asked: dict[str, Any]) -> dict[str, Any]:
        """The answer of Responses, or of Chat Completions."""
        tools = [tool.get("function", tool).get("name", "") for tool in asked.get("tools", [])]
        self.offered.append(tools)
        return self._response(asked) if path.endswith("/responses") else self._completion(asked)

    def _response(self, asked: dict[str, Any]) -> dict[str, Any]:
        given = [each for each in asked["input"] if isinstance(each, dict)]
        outputs = [each["output"] for each in given if each.get("type") == "function_call_output"]
        call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": self._tool, "arguments": self._arguments}
        said = {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": _text(outputs[-1]), "annotations": []}] if outputs else [],
        }
        return {
            "id": "resp_1",
            "object": "response",
            "created_at": 1,
            "status": "completed",
            "model": asked["model"],
            "output": [said] if outputs else [{**call, "status": "completed"}],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }

    def _completion(self, asked: dict[str, Any]) -> dict[str, Any]:
        outputs = [each["content"] for each in asked["messages"] if each["role"] == "tool"]
        function = {"name": self._tool, "arguments": self._arguments}
        called = [{"id": "call_1", "type": "function", "function": function}]
        message: dict[str, Any] = {"role": "assistant", "content": _text(outputs[-1]) if outputs else None}
        choice = {
            "index": 0,
            "finish_reason": "stop" if outputs else "tool_calls",
            "message": message if outputs else {**message, "tool_calls": called},
        }
        return {"id": "a", "object": "chat.completion", "created": 1, "model": asked["model"], "choices": [choice]}


def _text(output: Any) -> str:
    return output if isinstance(output, str) else json.dumps(output)


@contextmanager
def model_api(tool: str, arguments: dict[str, Any]) -> Iterator[Model]:
    """Runs the server on a free port of the loopback; its model calls this tool."""
    model = Model(tool, arguments)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            encoded = json.dumps(model.answer(self.path, asked)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        model.url = f"http://127.0.0.1:{server.server_port}/v1"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield model
        finally:
            server.shutdown()
            thread.join()
