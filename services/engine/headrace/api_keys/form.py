"""How an API key looks: `hr_<id>_<secret>`, of hexadecimal digits, 16 for the id and 64 for the secret."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from typing import NamedTuple

from headrace.errors import ApiKeyInvalid

PREFIX = "hr_"
_FORM = re.compile(r"hr_([0-9a-f]{16})_[0-9a-f]{64}", re.ASCII)
_ID_BYTES = 8
_SECRET_BYTES = 32


class ApiKeyText(NamedTuple):
    """A key as its owner has it.

    Attributes:
        id: names it, and is no secret.
        text: the whole key, which is one.
    """

    id: str
    text: str

    def __repr__(self) -> str:
        """Without the secret."""
        return f"ApiKeyText(id={self.id!r})"


def new_key(randomness: Callable[[int], bytes]) -> ApiKeyText:
    """A key that nobody has.

    Args:
        randomness: makes so many bytes that nobody can guess, as `os.urandom` does.
    """
    key_id = randomness(_ID_BYTES).hex()
    return ApiKeyText(key_id, f"{PREFIX}{key_id}_{randomness(_SECRET_BYTES).hex()}")


def parse_key(text: str) -> ApiKeyText:
    """The key that a text is.

    Raises:
        ApiKeyInvalid: it has not the form of one. The message does not repeat it.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise ApiKeyInvalid("This is no API key: one looks like hr_<16 hexadecimal digits>_<64 hexadecimal digits>.")
    return ApiKeyText(found[1], text)


def digest_of(key: ApiKeyText) -> str:
    """What is kept of a key: SHA-256, in hex.

    A slow hash with a salt, as passwords need, would add nothing: the secret has 256 random bits, so that no list of guesses
    could come near it, and every call would pay for the slowness.
    """
    return hashlib.sha256(key.text.encode()).hexdigest()


def matches(key: ApiKeyText, digest: str) -> bool:
    """Whether a key is the one of which this is kept; it takes as long whatever the answer is."""
    return hmac.compare_digest(digest_of(key), digest)
