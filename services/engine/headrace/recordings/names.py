"""The names under which calls are recorded: that of the worker, and what tells a call from others of that name.

| recorded as | the call |
|---|---|
| `page` | its place among the calls of that name is sure: the program alone decides it |
| `page[?]` | it is not: it may have hung on which of several answers came first |
| `page[<digest>]` | it has a `key` of its own |
| `page#1/token` | one within `fn` of another one, here of `page`, number 1 |
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import orjson

from headrace.codec import encode_any
from headrace.ports import RecordingKey

UNSURE: Final = "[?]"
_KEYED = re.compile(r"(?:\A|#\d+/)((?:(?!#\d+/).)+?)\[[0-9a-f]{32}\](?=(?:\[\?\])?(?:\Z|#\d+/))", re.DOTALL)
_TOLD_APART = re.compile(r"(?:\[[0-9a-f]{32}\])?(?:\[\?\])?\Z")


def keyed(name: str, key: Any) -> str:
    """The name of calls that have a key.

    Raises:
        Exception: it is no JSON. It may be of a class of the user's own, which can raise anything.
    """
    canonical = orjson.dumps(orjson.loads(encode_any(key)), option=orjson.OPT_SORT_KEYS)
    return f"{name}[{hashlib.sha256(canonical).hexdigest()[:32]}]"


def within(outer: RecordingKey, name: str) -> str:
    """The name of calls within `fn` of another one."""
    return f"{outer.name}#{outer.number}/{name}"


def is_unsure(key: RecordingKey) -> bool:
    """Whether nobody can say that the call of that number is the same in another attempt."""
    return key.name.endswith(UNSURE)


def of_either_kind(key: RecordingKey) -> tuple[RecordingKey, RecordingKey]:
    """The key of a call whose place is sure, and that which it has otherwise. A number is only ever given to one of them."""
    sure = key._replace(name=key.name.removesuffix(UNSURE))
    return sure, sure._replace(name=sure.name + UNSURE)


def keyed_names(name: str) -> Sequence[str]:
    """What the worker calls that which has a key in this: the call itself, and those within whose `fn` it is."""
    return _KEYED.findall(name)


def given_names(name: str) -> Iterator[str]:
    """What the worker may have called it. It is one of these; a name may have a slash in it, or end like one with a key."""
    yield name
    name = _TOLD_APART.sub("", name)
    yield name
    while "/" in name:
        name = name.partition("/")[2]
        yield name
