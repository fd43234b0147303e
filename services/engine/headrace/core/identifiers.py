"""Ids that rise with time."""

from __future__ import annotations

import uuid


def fresh_id(milliseconds: int, randomness: bytes) -> str:
    """A UUIDv7 (RFC 9562, section 5.7), so that ids sort by the time they were made.

    Args:
        milliseconds: since the Unix epoch, up to 48 bits.
        randomness: 10 random bytes, of which 74 bits are used.
    """
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80 | int.from_bytes(randomness[:10], "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))
