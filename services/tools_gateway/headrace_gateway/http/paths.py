"""The parts of paths that may be any text."""

from __future__ import annotations

from typing import Final

from starlette.convertors import PathConvertor, register_url_convertor

ANYTHING: Final = "anything"
"""The convertor of a part of a path that may be any text, line breaks too: of `path`, the framework's own, these are no part."""


class _Anything(PathConvertor):
    regex = r"[\s\S]*"


register_url_convertor(ANYTHING, _Anything())
