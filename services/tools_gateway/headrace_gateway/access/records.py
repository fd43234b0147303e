"""Credentials in records. Whoever may read a topic reads them, too: only one that is of no use to them may stand there."""

from __future__ import annotations

from headrace_gateway.access.errors import CredentialInvalid
from headrace_gateway.access.keys import KEY_START
from headrace_gateway.access.principal import Principal

_HOW = (
    "send a token of the issuer that was made for this call alone, whose claim callId (HEADRACE_AUTH_CALL_CLAIM) is the call's "
    "id, in the record's header authorization, after `Bearer`; or call through a topic of your tenant's own"
)


def check_of_record(credential: str | None) -> None:
    """Checks that what stands in a record may stand there at all.

    Raises:
        CredentialInvalid: there is nothing, or an API key.
    """
    if credential is None:
        raise CredentialInvalid(f"Nothing says whose call this is: {_HOW}.")
    if credential.startswith(KEY_START):
        raise CredentialInvalid(
            f"API keys do not count in records, where whoever reads the topic can take them: have this one revoked, and {_HOW}."
        )


def check_made_for(principal: Principal, call_id: str | None, digest: str | None) -> None:
    """Checks that a credential is used for what it was made for.

    Args:
        call_id: of the call that came as a record; None for any other call.
        digest: SHA-256 of that record's value; None for any other call.

    Raises:
        CredentialInvalid: it was made for a call, or a record, and this is another one; or this came as a record, and it was made
            for no call.
    """
    if principal.call_id == call_id and principal.call_digest in (None, digest):
        return
    if call_id is None:
        raise CredentialInvalid("This token was made for one call that comes as a record, and counts nowhere else.")
    raise CredentialInvalid(f"This token was not made for this call: {_HOW}.")
