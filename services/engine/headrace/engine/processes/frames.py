"""What an engine and its child processes say to each other: frames over a pair of sockets, each a kind, a length and JSON."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

HEADER: Final = struct.Struct(">BI")
NUMBER: Final = struct.Struct(">Q")
"""Begins the content of every answer: the number of the call, from 1, and 0 of what answers to BEGIN."""
# A result is half a megabyte at most, and a job with all that belongs to it one: whoever sends more has gone mad.
LARGEST_BYTES: Final = 8 * 1024 * 1024


class Kind(IntEnum):
    """What a frame is."""

    BEGIN = 1
    """To the child, first of all: what it needs to become one."""
    READY = 2
    """From the child: it has its worker."""
    CALL = 3
    """To the child: an attempt."""
    PROGRESS = 4
    LOG = 5
    RETURNED = 6
    """From the child: the attempt returned. With nothing behind the number it returned nothing."""
    RAISED = 7
    """From the child: the attempt raised, or there is no worker."""
    END = 8
    """To the child: no further attempt comes."""
    FIND = 9
    """From the child: the attempt asks for what was recorded."""
    RECORD = 10
    """From the child: the attempt has something recorded."""
    RECORDED = 11
    """To the child: the answer to either."""


def frame(kind: Kind, content: bytes = b"") -> bytes:
    """A frame as it goes over the socket."""
    return HEADER.pack(kind, len(content)) + content
