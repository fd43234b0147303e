"""Why somebody is not let in, or may not do what they ask for."""

from __future__ import annotations

from headrace import HeadraceError


class CredentialInvalid(HeadraceError):
    """Nobody knows who calls: there is no credential, or it is none that counts. It never says which part of it is wrong."""

    code = "unauthenticated"


class AccessDenied(HeadraceError):
    """It is known who calls, and they may not do this. The message names the scope that is missing, or the user."""

    code = "forbidden"
