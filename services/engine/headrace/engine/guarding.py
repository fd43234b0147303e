"""A fault of the engine's own, in a callback or in a task, ends the engine: else asyncio would log it and go on.

What is left half done by it would be done by nobody: a job that runs for ever by the log, and its partition renewed for as long.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import ParamSpec

_logger = logging.getLogger(__name__)

ParametersT = ParamSpec("ParametersT")


class Guard:
    """Tells whoever ends the engine of what nobody expected.

    Args:
        crashed: called with the error.
    """

    def __init__(self, crashed: Callable[[BaseException], None]) -> None:
        self._crashed = crashed

    def tell(self, what: str, error: BaseException) -> None:
        """A part of the engine has ended by an error.

        Args:
            what: the part.
        """
        _logger.critical("%s ended by an error that nobody expected", what, exc_info=error)
        self._crashed(error)

    @contextlib.contextmanager
    def within(self, what: str) -> Iterator[None]:
        """What is done within raises nothing but what ends a task from outside."""
        try:
            yield
        except Exception as error:
            self.tell(what, error)

    def watch(self, task: asyncio.Task[None]) -> None:
        """A task that is to run until it is cancelled."""
        task.add_done_callback(self._look)

    def _look(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.tell(task.get_name(), error)

    def __call__(self, callback: Callable[ParametersT, None]) -> Callable[ParametersT, None]:
        """The same callback, which raises nothing."""

        def guarded(*args: ParametersT.args, **options: ParametersT.kwargs) -> None:
            try:
                callback(*args, **options)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self.tell(getattr(callback, "__qualname__", "a callback"), error)

        return guarded


def _raise(error: BaseException) -> None:
    raise error


UNGUARDED = Guard(_raise)
"""Where there is no engine that could end: the error goes on to whoever called."""
