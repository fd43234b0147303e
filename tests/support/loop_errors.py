"""What an event loop is told of that went wrong where nobody waited for it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def told_to_the_loop() -> Iterator[list[dict[str, Any]]]:
    """What the running loop is told of meanwhile; of what nobody has looked at, it is told when that is collected."""
    gc.collect()  # what other tests have left is not told of here
    loop, told = asyncio.get_running_loop(), list[dict[str, Any]]()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: told.append(context))
    try:
        yield told
    finally:
        loop.set_exception_handler(before)
