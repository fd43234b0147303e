"""What the gateway's own server offers an application beside ASGI's messages (`scope["extensions"]`): the same at less cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from starlette.types import Scope

WHOLE_ANSWER: Final = "headrace.whole_answer"
"""Sends an answer with the status 200 and this JSON body; tells whether it was sent. If not, it has to be sent by messages."""
WHOLE_BODY: Final = "headrace.whole_body"
"""The body of the request, if all of it has come; else None, and it has to be received by messages. To be asked for once."""


def extension_of(scope: Scope, name: str) -> Callable[..., Any] | None:
    """What the server offers under the name; None if it does not."""
    extensions = scope.get("extensions")
    return None if extensions is None else extensions.get(name)
