"""Closing workers when their engine has stopped: what goes wrong there is their own, and keeps the engine from nothing."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from headrace.abstract_worker import AbstractWorker

_logger = logging.getLogger(__name__)

_CLOSE_SECONDS = 5.0


async def close_worker(worker: AbstractWorker[Any]) -> None:
    """Closes a worker, whatever it raises, and returns after five seconds, whatever it does."""
    closing = asyncio.create_task(_error_of(worker))
    try:
        await asyncio.wait({closing}, timeout=_CLOSE_SECONDS)
    finally:
        # It is not waited for: it may take no notice.
        closing.cancel()
    late = TimeoutError(f"it took longer than {_CLOSE_SECONDS:g} s")
    if (error := closing.result() if closing.done() else late) is not None:
        _logger.error("worker %s could not be closed", worker.name, exc_info=error)


async def _error_of(worker: AbstractWorker[Any]) -> BaseException | None:
    """What a worker raises. It may be a cancellation: that of a task of its own, which it has ended and waited for."""
    try:
        await worker.close()
    except GeneratorExit:
        raise  # the event loop is closed
    except BaseException as error:
        return error
    return None
