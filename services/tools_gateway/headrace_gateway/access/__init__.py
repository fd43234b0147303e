"""Who calls, and what they may do. It knows nothing of how a call arrives, nor of what it asks for."""

from __future__ import annotations

from headrace_gateway.access.admission import Access, Admission, Arrival, Audit, Audited
from headrace_gateway.access.audit import TrailAudit
from headrace_gateway.access.authentication import Anyone, Authenticator, Credentials, authenticator_for, is_required
from headrace_gateway.access.errors import (
    AccessDenied,
    CredentialInvalid,
    HostRefused,
    LimitExceeded,
    OriginRefused,
    RateLimited,
    TooManyInFlight,
)
from headrace_gateway.access.exposure import Names, check_exposure
from headrace_gateway.access.limits import Allowance, Limits
from headrace_gateway.access.principal import LOCAL, Principal
from headrace_gateway.access.scopes import ALL_SCOPES, Scope
from headrace_gateway.access.strangers import Strangers
from headrace_gateway.access.turns import Turns

__all__ = [
    "ALL_SCOPES",
    "LOCAL",
    "Access",
    "AccessDenied",
    "Admission",
    "Allowance",
    "Anyone",
    "Arrival",
    "Audit",
    "Audited",
    "Authenticator",
    "CredentialInvalid",
    "Credentials",
    "HostRefused",
    "LimitExceeded",
    "Limits",
    "Names",
    "OriginRefused",
    "Principal",
    "RateLimited",
    "Scope",
    "Strangers",
    "TooManyInFlight",
    "TrailAudit",
    "Turns",
    "authenticator_for",
    "check_exposure",
    "is_required",
]
