"""Whatever strangers send as a credential, a name or a page: they are refused, and nothing else happens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers

from headrace import ApiKeyInvalid, parse_key
from headrace.settings import AuthSettings
from headrace_gateway.access import CredentialInvalid, HostRefused, Names, OriginRefused
from headrace_gateway.access.credentials import credential_of
from headrace_gateway.access.issuer import IssuerKeys
from headrace_gateway.access.tokens import TokenAuthenticator
from support.access import AUDIENCE, public_jwk

KEY = ed25519.Ed25519PrivateKey.generate()
ISSUER = "https://issuer.example"
LATIN = st.text(st.characters(max_codepoint=255), max_size=60)
HOSTS = st.one_of(LATIN, st.from_regex(r"[\[\]:@/?#%.,a-z0-9]{0,30}", fullmatch=True))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
CLAIMS = st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "scope", "jti"])


async def fetch(url: str) -> Any:
    return {"keys": [{**public_jwk(KEY), "kid": "ed"}]}


async def authenticated(token: str) -> str | None:
    tokens = TokenAuthenticator(AuthSettings(issuer=ISSUER, audience=AUDIENCE), IssuerKeys(ISSUER, f"{ISSUER}/keys", fetch=fetch))
    await tokens.start()
    try:
        return (await tokens.authenticate(token)).subject
    except CredentialInvalid:
        return None
    finally:
        await tokens.stop()


@given(HOSTS)
@settings(max_examples=1_000)
def test_no_name_is_more_than_refused(text: str) -> None:
    names = Names(hosts=frozenset({"gateway.example"}))
    with contextlib.suppress(HostRefused):
        names.check_host(text)
    with contextlib.suppress(OriginRefused):
        names.check_origin(text)


@given(st.lists(st.tuples(st.sampled_from(["authorization", "x-api-key"]), LATIN), max_size=3))
@settings(max_examples=500)
def test_no_header_is_more_than_no_credential(given_headers: list[tuple[str, str]]) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in given_headers]
    found = credential_of(Headers(raw=raw))
    assert (found is None) == (not raw)
    with contextlib.suppress(ApiKeyInvalid):
        parse_key(found or "")


@given(st.text(max_size=80))
@settings(max_examples=300)
def test_no_text_is_a_token(text: str) -> None:
    assert asyncio.run(authenticated(text)) is None


@given(st.dictionaries(CLAIMS, JSON, min_size=1, max_size=4))
@settings(max_examples=300)
def test_no_claims_that_the_issuer_signs_do_more_than_not_count(claims: dict[str, Any]) -> None:
    given_claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": int(time.time()) + 300} | claims
    with contextlib.suppress(TypeError):  # the library that signs does not take an issuer that is no text
        found = asyncio.run(authenticated(jwt.encode(given_claims, KEY, algorithm="EdDSA", headers={"kid": "ed"})))
        assert found is None or found == given_claims["sub"]


@given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jku", "jwk", "x5u"]), JSON, max_size=4))
@settings(max_examples=300)
def test_no_header_of_a_token_lets_in_who_did_not_sign_it(header: dict[str, Any]) -> None:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": int(time.time()) + 300}
    _, payload, signature = jwt.encode(claims, ed25519.Ed25519PrivateKey.generate(), algorithm="EdDSA").split(".")
    encoded = jwt.utils.base64url_encode(json.dumps({"alg": "EdDSA", "kid": "ed", **header}).encode()).decode()
    assert asyncio.run(authenticated(f"{encoded}.{payload}.{signature}")) is None
