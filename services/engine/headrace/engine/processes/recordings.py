"""What an attempt in a child process records: its engine does that for it, whose connection to the brokers it is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import orjson

from headrace.engine.processes.failures import tell, told_error
from headrace.engine.processes.frames import NUMBER, Kind
from headrace.ports import Recorder, RecordingKey

Send = Callable[[Kind, bytes], None]


class ChildRecordings:
    """What attempts in a child process record. Answers come by another thread than those that wait for them."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._asked: dict[int, Future[bytes | None]] = {}
        self._count = 0

    def of(self, call: int) -> ChildRecorder:
        """What the attempt of that call records with."""
        return ChildRecorder(self, call)

    def ask(self, call: int, kind: Kind, asked: dict[str, Any], value: bytes = b"") -> Future[bytes | None]:
        """Asks the engine for something, for the attempt of a call; its answer."""
        answer: Future[bytes | None] = Future()
        with self._lock:
            self._count += 1
            request = self._count
            self._asked[request] = answer
        self._send(kind, NUMBER.pack(call) + _packed({**asked, "request": request}, value))
        return answer

    def answered(self, content: bytes) -> None:
        """The engine has answered."""
        told, value = _unpacked(content)
        with self._lock:
            answer = self._asked.pop(told["request"], None)
        if answer is None or not answer.set_running_or_notify_cancel():
            return
        if "error" in told:
            answer.set_exception(told_error(told["error"]))
        else:
            answer.set_result(value if told["found"] else None)


class ChildRecorder:
    """The `Recorder` of one attempt. It stays that of its call, also for a thread that outlives the attempt."""

    def __init__(self, recordings: ChildRecordings, call: int) -> None:
        self._recordings = recordings
        self._call = call

    async def find(self, key: RecordingKey, *, reuse: bool) -> bytes | None:
        """Asks the engine what stands for an answer."""
        asked = {**key._asdict(), "reuse": reuse}
        return await asyncio.wrap_future(self._recordings.ask(self._call, Kind.FIND, asked))

    async def write(self, key: RecordingKey, value: bytes) -> None:
        """Has the engine record an answer."""
        await asyncio.wrap_future(self._recordings.ask(self._call, Kind.RECORD, key._asdict(), value))


class RecordingDesk:
    """Does for one attempt in a child process what that asks its engine to record, or to find.

    Args:
        recorder: made when it is first asked for something; None where nothing is recorded.
        send: sends a frame to the child.
    """

    def __init__(self, recorder: Callable[[], Recorder | None], send: Send) -> None:
        self._make = recorder
        self._send = send
        self._recorder: Recorder | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, kind: Kind, content: bytes) -> None:
        """The child asks for something; the answer follows."""
        task = asyncio.create_task(self._answer(kind, content))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """The attempt is over: nobody waits for an answer."""
        for task in self._tasks:
            task.cancel()

    async def _answer(self, kind: Kind, content: bytes) -> None:
        asked, value = _unpacked(content)
        key, answer = RecordingKey(asked["name"], asked["number"], asked["failure"]), {"request": asked["request"]}
        try:
            if self._recorder is None:
                self._recorder = self._make()
            found: bytes | None = None
            if self._recorder is not None and kind == Kind.FIND:
                found = await self._recorder.find(key, reuse=asked["reuse"])
            elif self._recorder is not None:
                await self._recorder.write(key, value)
        except Exception as error:
            self._send(Kind.RECORDED, _packed({**answer, "error": orjson.Fragment(tell(error))}))
        else:
            self._send(Kind.RECORDED, _packed({**answer, "found": found is not None}, found or b""))


def _packed(told: dict[str, Any], value: bytes = b"") -> bytes:
    # JSON as it is written here has no line break.
    return orjson.dumps(told) + b"\n" + value


def _unpacked(content: bytes) -> tuple[dict[str, Any], bytes]:
    told, _, value = content.partition(b"\n")
    return orjson.loads(told), value
