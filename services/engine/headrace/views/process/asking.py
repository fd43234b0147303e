"""What the parent asks the process that keeps a view, and the answers."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

from headrace import errors
from headrace.errors import HeadraceError
from headrace.views.process.child import Child
from headrace.views.process.frames import Kind


class ChildGone(HeadraceError):
    """The process ended before it answered."""


class Asking:
    """The requests to one process."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._gone: str | None = None

    def send(self, kind: Kind, content: Any = None) -> None:
        """Says something to which there is no answer."""
        self.child.connection.send(kind, content)

    async def ask(self, name: str, *arguments: Any) -> None:
        """Returns when it has done what is asked for.

        Raises:
            ChildGone: it ended before.
            HeadraceError, TimeoutError: what was raised there.
        """
        if self._gone is not None:
            raise ChildGone(self._gone)
        number, answer = next(self._numbers), asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self.send(Kind.REQUEST, (number, name, *arguments))
        try:
            await answer
        except asyncio.CancelledError:
            self.send(Kind.CANCEL, number)
            raise
        finally:
            del self._waiting[number]

    def answered(self, number: int, error: tuple[str, str] | None) -> None:
        """An answer came."""
        answer = self._waiting.get(number)
        if answer is None or answer.done():
            return
        if error is None:
            answer.set_result(None)
        else:
            answer.set_exception(error_told(*error))

    def ended(self, how: str) -> None:
        """Nothing that was asked for is answered any more."""
        self._gone = how
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ChildGone(how))


def error_told(name: str, text: str) -> Exception:
    """An error as it was raised in the other process, or one that says the same."""
    if name == TimeoutError.__name__:
        return TimeoutError(text)
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, HeadraceError) and kind.__init__ is HeadraceError.__init__:
        return kind(text)
    return HeadraceError(text or name)
