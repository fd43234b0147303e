"""On whose behalf a call is made, as its credential says. Nothing of it ever comes from a call's arguments."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from headrace import DEFAULT_TENANT
from headrace_gateway.access.errors import AccessDenied
from headrace_gateway.access.scopes import ALL_SCOPES, Scope


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Who calls.

    Attributes:
        subject: who it is: the user, or the service, within the tenant. Without the scope `jobs:act-as` it is the one user whose
            jobs and conversations there are for this principal.
        tenant: whose jobs are seen and made.
        scopes: what it may do.
        credential: names the key or the issuer of the token in the audit; never a secret.
        expires_at: when it counts no more, in seconds since the Unix epoch, where that is known of the credential itself.
        call_id: the one call, by its id, that the credential was made for; None where it is for any.
        call_digest: SHA-256 of the one record, by its value, that the credential was made for; None where it is for any.
        vouched: there is no credential that could cease to count: the way by which the call came is open to this principal alone.
    """

    subject: str
    tenant: str = DEFAULT_TENANT
    scopes: frozenset[Scope] = field(default_factory=frozenset)
    credential: str = ""
    expires_at: float | None = None
    call_id: str | None = None
    call_digest: str | None = None
    vouched: bool = False

    def require(self, scope: Scope) -> None:
        """Checks a right.

        Raises:
            AccessDenied: the principal does not have it.
        """
        if scope not in self.scopes:
            raise AccessDenied(
                f"{self.subject!r} lacks the scope {scope.value!r}: ask the operator for a credential that has it."
            )

    @cached_property
    def only_user(self) -> str | None:
        """The one user for whom it may act and whose jobs it may see; None where it may act for all of its tenant."""
        return None if Scope.JOBS_ACT_AS in self.scopes else self.subject

    def check_user(self, user_id: str | None) -> str | None:
        """The user that a call is about, when it names this one; where it names none, the one that it can only mean.

        Raises:
            AccessDenied: the principal may not act for that user.
        """
        only = self.only_user
        if only is None or user_id == only:
            return user_id
        if user_id is None:
            return only
        raise AccessDenied(
            f"{self.subject!r} may not act for the user {user_id!r}: that takes the scope {Scope.JOBS_ACT_AS.value!r}."
        )


LOCAL = Principal(subject="local", scopes=ALL_SCOPES, credential="none")
"""Whoever reaches a gateway that asks nobody who they are; such a one listens on this machine alone."""
