"""The port of a gateway is its own from the moment in which it has taken it."""

from __future__ import annotations

import pytest

from headrace import ConfigurationError, load_settings
from headrace_gateway.server import _bind


async def test_a_port_that_another_has_taken_is_refused_before_that_one_serves() -> None:
    """Both bound and neither served, callers of one would reach the other."""
    first = await _bind(load_settings(gateway={"port": 0}))
    try:
        taken = first.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1, port {taken}"):
            (await _bind(load_settings(gateway={"port": taken}))).close()
    finally:
        first.close()
