"""Which conversations a job is about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from headrace.ports import ConversationRef
from headrace.replay.history import RecordedJob


def conversations_of(job: RecordedJob) -> Iterator[ConversationRef]:
    """The conversations that a job is about, as its arguments and its context name them."""
    sources: list[Mapping[str, Any]] = [each for name in ("args", "ctx") if isinstance(each := job.record.get(name), Mapping)]
    if not any("conversationId" in each for each in sources):
        return  # as most jobs: it is asked of each that is replayed
    users, conversations = (
        {value for each in sources if isinstance(value := each.get(name), str)} for name in ("userId", "conversationId")
    )
    for user, conversation in product(users, conversations):
        yield ConversationRef(job.tenant, user, conversation)
