"""Ids of jobs: fresh ones that rise with time, and those that follow from something else."""

from __future__ import annotations

import uuid
from urllib.parse import quote

_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")
_DERIVED = uuid.uuid5(uuid.NAMESPACE_URL, "urn:headrace:job")


def fresh_id(milliseconds: int, randomness: bytes) -> str:
    """A UUIDv7 (RFC 9562, section 5.7), so that ids sort by the time they were made.

    Args:
        milliseconds: since the Unix epoch, up to 48 bits.
        randomness: 10 random bytes, of which 74 bits are used.
    """
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80 | int.from_bytes(randomness[:10], "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def is_fresh(job_id: str) -> bool:
    """Whether an id is one that `fresh_id` makes; any other may come again, and its job be asked for again by it."""
    return len(job_id) == 36 and job_id[14] == "7"


def made_at(job_id: str) -> int | None:
    """When a fresh id was made, in milliseconds since the Unix epoch; None for any other id."""
    digits = job_id[:13].replace("-", "")
    return int(digits, 16) if is_fresh(job_id) and len(digits) == 12 and set(digits) <= _HEXADECIMAL else None


def derived_id(*parts: str) -> str:
    """A UUIDv5 (RFC 9562, section 5.5) that is the same for the same parts, wherever and whenever it is made.

    Args:
        parts: what the id follows from. Each is percent-encoded, so that a slash in one cannot make it another.
    """
    return str(uuid.uuid5(_DERIVED, "/".join(quote(part, safe="") for part in parts)))
