"""The record by which a namespace is known as the sandbox of a replay."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from headrace.core.topics import IN_SANDBOX_NAMES
from headrace.fields import Timestamp
from headrace.namespaces import Namespace
from headrace.wire import SCHEMA_VERSION, SchemaVersion, WireModel


class SandboxMarker(WireModel):
    """The first record of `replay.marker`: a namespace is the sandbox of a replay.

    Attributes:
        topics, groups: all that the sandbox may have; nothing of its name existed before.
    """

    schema_version: SchemaVersion = SCHEMA_VERSION
    sandbox: Namespace
    namespace: str = Field(description="Whose jobs were replayed in it.")
    host: str
    process_id: int
    started_at: Timestamp
    topics: list[str]
    groups: list[str]

    @model_validator(mode="after")
    def _names_its_own(self) -> Self:
        # Whatever it says, what a live system may have made is never deleted by it.
        if not self.sandbox.startswith(f"{self.namespace}{IN_SANDBOX_NAMES}"):
            raise ValueError(f"a sandbox of {self.namespace} is named {self.namespace}{IN_SANDBOX_NAMES}<id>")
        if has_names_of_queues(self.sandbox):
            raise ValueError("the topics of the sandbox would be named like queues")
        if not all(name.startswith(f"{self.sandbox}.") for name in (*self.topics, *self.groups)):
            raise ValueError("a marker names what is not of its sandbox")
        return self


def has_names_of_queues(sandbox: str) -> bool:
    """Whether topics of a namespace of that name are named like queues of another: `a.jobs.control` may be that of a worker."""
    return sandbox.endswith(".jobs")
