"""API keys: how they look, and the topic in which they are kept, hashed."""

from __future__ import annotations

from headrace.api_keys.form import ApiKeyText, digest_of, new_key, parse_key
from headrace.api_keys.keeping import ApiKeys

__all__ = ["ApiKeyText", "ApiKeys", "digest_of", "new_key", "parse_key"]
