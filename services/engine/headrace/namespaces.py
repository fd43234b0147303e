"""What a namespace may be called."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

Namespace = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
"""The first part of every topic's and group's name."""
