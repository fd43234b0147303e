"""Why somebody is not let in, or may not do what they ask for."""

from __future__ import annotations

import math

from headrace import HeadraceError


class CredentialInvalid(HeadraceError):
    """Nobody knows who calls: there is no credential, or it is none that counts. It never says which part of it is wrong."""

    code = "unauthenticated"


class AccessDenied(HeadraceError):
    """It is known who calls, and they may not do this. The message names the scope that is missing, or the user."""

    code = "forbidden"


class HostRefused(HeadraceError):
    """The gateway was addressed by a name that it does not go by, as a page does that rebound its own name to this machine."""

    code = "host_refused"


class OriginRefused(HeadraceError):
    """A web page calls that is not on the list of those that may."""

    code = "origin_refused"


class LimitExceeded(HeadraceError):
    """A principal does more at a time than it may.

    Attributes:
        retry_after: seconds after which the call is worth repeating, at least 1.
    """

    code = "rate_limited"

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = max(1, math.ceil(retry_after))


class RateLimited(LimitExceeded):
    """More calls in a time than a principal may make."""


class TooManyInFlight(LimitExceeded):
    """More calls at once than a principal may have under way, or more streams open."""

    code = "too_many_in_flight"
