"""What an attempt in a child process says while it runs of how far it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from headrace.engine.processes.frames import Kind

Send = Callable[[Kind, bytes], None]

# It is written down once a second; an attempt that says it in a tight loop must not keep its engine busy.
_APART_SECONDS = 0.2


class Reports:
    """Takes what attempts say of their progress, from any thread, and sends the newest of it a few times a second."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._said = threading.Condition()
        self._unsent: dict[str, Any] | None = None
        self._thread: threading.Thread | None = None

    def progress(self, number: int, fraction: float, text: str | None) -> None:
        """An attempt says how far it is.

        Args:
            number: of the call, so that nothing is taken for another's.
        """
        with self._said:
            self._unsent = {"number": number, "fraction": float(fraction), "text": None if text is None else str(text)[:1000]}
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep_sending, name="headrace-progress", daemon=True)
                self._thread.start()
            self._said.notify()

    def flush(self) -> None:
        """Sends what was not sent: the attempt is over."""
        with self._said:
            unsent, self._unsent = self._unsent, None
            if unsent is not None:
                self._send(Kind.PROGRESS, _encode(unsent))

    def _keep_sending(self) -> None:
        while True:
            with self._said:
                self._said.wait_for(lambda: self._unsent is not None)
            self.flush()
            time.sleep(_APART_SECONDS)


def _encode(said: Mapping[str, Any]) -> bytes:
    text = said["text"]
    return orjson.dumps({**said, "text": None if text is None else text.encode(errors="replace").decode()})
