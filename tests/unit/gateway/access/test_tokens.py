"""Tokens of an issuer that listens at a real address: which ones count, and how its keys are fetched."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import threading
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.warnings import InsecureKeyLengthWarning

from headrace import ConfigurationError
from headrace_gateway.access import CredentialInvalid, Scope
from headrace_gateway.access.issuer import AGAIN_SECONDS, IssuerKeys
from headrace_gateway.access.tokens import TokenAuthenticator
from support.access import AUDIENCE, Clock, Issuer, new_rsa_key, running_issuer, unsigned


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with running_issuer() as running:
        yield running


async def started(issuer: Issuer, clock: Clock | None = None, **values: Any) -> TokenAuthenticator:
    settings = issuer.settings(**values)
    keys = IssuerKeys(issuer.url, settings.jwks_url, clock=clock or Clock())
    tokens = TokenAuthenticator(settings, keys)
    await tokens.start()
    return tokens


async def refused(tokens: TokenAuthenticator, token: str) -> None:
    with pytest.raises(CredentialInvalid) as told:
        await tokens.authenticate(token)
    assert str(told.value) == "This token does not count: get a new one from its issuer.", "it does not say what is wrong"


@pytest.mark.parametrize(("key_id", "algorithm"), [("rsa", "RS256"), ("ec", "ES256"), ("ed", "EdDSA")])
async def test_a_token_of_the_issuer_counts(issuer: Issuer, key_id: str, algorithm: str) -> None:
    tokens = await started(issuer)
    principal = await tokens.authenticate(issuer.token(key_id=key_id, algorithm=algorithm))
    assert (principal.subject, principal.tenant) == ("ann", "default")
    assert principal.scopes == {Scope.JOBS_READ, Scope.JOBS_WRITE}
    assert principal.credential == f"token:{issuer.url}"
    await tokens.stop()
    assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]


async def test_claims_say_who_it_is(issuer: Issuer) -> None:
    tokens = await started(issuer, subject_claim="email", tenant_claim="org", scopes_claim="roles")
    token = issuer.token(email="bob@x", org="acme", roles=["jobs:read", "admin", 5])
    principal = await tokens.authenticate(token)
    assert (principal.subject, principal.tenant, *principal.scopes) == ("bob@x", "acme", Scope.JOBS_READ)
    wrongs: list[dict[str, Any]] = [{"org": None}, {"org": ""}, {"org": 5}, {"email": None}, {"email": "x" * 201}]
    for wrong in wrongs:
        claims: dict[str, Any] = {"email": "bob@x", "org": "acme", **wrong}
        await refused(tokens, issuer.token(**claims))
    assert (await tokens.authenticate(issuer.token(email="b", org="o", scope="jobs:read"))).scopes == set()
    await tokens.stop()


async def test_tokens_that_do_not_count(issuer: Issuer) -> None:
    tokens = await started(issuer, leeway_seconds=60)
    now = int(time.time())
    good = issuer.token()
    header, payload, signature = good.split(".")
    _, other_payload, _ = issuer.token(sub="bob").split(".")
    for token in [
        issuer.token(exp=now - 61),
        issuer.token(exp=None),
        issuer.token(nbf=now + 300),
        issuer.token(iss="https://other.example"),
        issuer.token(iss=None),
        issuer.token(aud="another service"),
        issuer.token(aud=None),
        issuer.token(sub=None),
        issuer.token(exp="tomorrow"),
        issuer.token(key=new_rsa_key()),
        issuer.token(key_id=None, key=issuer.published["rsa"]),
        f"{header}.{other_payload}.{signature}",
        f"{header}.{payload}.",
        f"{header}.{payload}",
        good[:-8],
        "x" * 20_000,
        "",
        "a.b.c",
        "\x00.é.\ud800",
        unsigned({"iss": issuer.url, "aud": AUDIENCE, "sub": "ann", "exp": now + 300}),
    ]:
        await refused(tokens, token)
    assert (await tokens.authenticate(issuer.token(exp=now - 10))).subject == "ann", "the issuer's clock may differ a little"
    assert (await tokens.authenticate(issuer.token(aud=["x", AUDIENCE]))).subject == "ann"
    await tokens.stop()


async def test_the_issuer_s_public_key_is_no_shared_secret(issuer: Issuer) -> None:
    tokens = await started(issuer)
    public = (
        issuer.published["rsa"]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    unsigned_part = jwt.encode({"sub": "ann"}, issuer.published["rsa"], algorithm="RS256", headers={"kid": "rsa"}).split(".")
    forged_header = jwt.encode(
        {"iss": issuer.url, "aud": AUDIENCE, "sub": "ann", "exp": int(time.time()) + 300},
        "k" * 64,
        algorithm="HS256",
        headers={"kid": "rsa"},
    ).split(".")
    assert unsigned_part[0] != forged_header[0]
    signing = f"{forged_header[0]}.{forged_header[1]}".encode()
    signature = jwt.utils.base64url_encode(hmac.new(public, signing, hashlib.sha256).digest()).decode()
    await refused(tokens, f"{forged_header[0]}.{forged_header[1]}.{signature}")
    await tokens.stop()


@pytest.mark.parametrize("character", ["\x00", "\n", "\x85", "\ud800"])
async def test_nobody_has_control_characters_in_their_name(issuer: Issuer, character: str) -> None:
    tokens = await started(issuer)
    await refused(tokens, issuer.token(sub=f"ann{character}"))
    await refused(tokens, issuer.token(callId=f"call{character}"))
    await tokens.stop()


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256"])
async def test_other_algorithms_do_not_count(issuer: Issuer, algorithm: str) -> None:
    tokens = await started(issuer)
    await refused(tokens, issuer.token(algorithm=algorithm))
    await tokens.stop()


async def test_a_key_of_another_kind_than_the_token_says_does_not_count(issuer: Issuer) -> None:
    tokens = await started(issuer)
    await refused(tokens, issuer.token(key=issuer.published["ec"], key_id="rsa", algorithm="ES256"))
    await tokens.stop()


async def test_short_and_unfit_keys_of_an_issuer_are_not_used(issuer: Issuer) -> None:
    issuer.published["short"] = rsa.generate_private_key(public_exponent=65_537, key_size=1024)
    issuer.published["wide"] = ec.generate_private_key(ec.SECP384R1())
    tokens = await started(issuer)
    with pytest.warns(InsecureKeyLengthWarning):
        token = issuer.token(key_id="short")
    await refused(tokens, token)
    await refused(tokens, issuer.token(key_id="wide", algorithm="ES384"))
    await tokens.authenticate(issuer.token())
    await tokens.stop()


async def test_a_new_key_is_fetched_when_a_token_names_it_and_not_more_often(issuer: Issuer) -> None:
    clock = Clock()
    tokens = await started(issuer, clock)
    issuer.published["new"] = new_rsa_key()
    token = issuer.token(key_id="new")
    await refused(tokens, token)
    assert len(issuer.asked) == 2, "the keys were fetched a moment ago"
    clock.at += AGAIN_SECONDS
    await asyncio.gather(*(tokens.authenticate(token) for _ in range(20)))
    assert len(issuer.asked) == 4, "all who wait share one fetch"
    for number in range(50):
        await refused(tokens, issuer.token(key=issuer.published["new"], key_id=f"unknown-{number}"))
    assert len(issuer.asked) == 4, "tokens of strangers are not turned into requests"
    await tokens.stop()


async def test_a_key_that_is_withdrawn_counts_no_more_after_the_next_fetch(issuer: Issuer) -> None:
    clock = Clock()
    tokens = await started(issuer, clock)
    token = issuer.token()
    await tokens.authenticate(token)
    del issuer.published["rsa"]
    await tokens.authenticate(token)
    clock.at += AGAIN_SECONDS
    await refused(tokens, issuer.token(key=issuer.published["ec"], key_id="unknown", algorithm="ES256"))
    await refused(tokens, token)
    await tokens.stop()


async def test_an_issuer_that_is_ill_is_no_reason_not_to_start_and_keys_stay(issuer: Issuer) -> None:
    issuer.ill = True
    clock = Clock()
    tokens = await started(issuer, clock)
    await refused(tokens, issuer.token())
    issuer.ill = False
    clock.at += AGAIN_SECONDS
    await tokens.authenticate(issuer.token())
    issuer.ill = True
    clock.at += AGAIN_SECONDS
    await refused(tokens, issuer.token(key_id="unknown", key=issuer.published["rsa"]))
    await tokens.authenticate(issuer.token(sub="bob"))
    await tokens.stop()


async def test_fetching_holds_nobody_up(issuer: Issuer) -> None:
    clock = Clock()
    tokens = await started(issuer, clock)
    issuer.slow = threading.Event()
    clock.at += AGAIN_SECONDS
    waiting = asyncio.create_task(tokens.authenticate(issuer.token(key_id="unknown", key=issuer.published["rsa"])))
    await asyncio.sleep(0)
    assert (await tokens.authenticate(issuer.token())).subject == "ann"
    assert not waiting.done()
    issuer.slow.set()
    with pytest.raises(CredentialInvalid):
        async with asyncio.timeout(10):
            await waiting
    await tokens.stop()


async def test_one_key_needs_no_name_and_an_address_of_keys_no_discovery(issuer: Issuer) -> None:
    issuer.published = {"rsa": issuer.published["rsa"]}
    tokens = await started(issuer, jwks_url=f"{issuer.url}/elsewhere")
    await tokens.authenticate(issuer.token(key_id=None, key=issuer.published["rsa"]))
    assert issuer.asked == ["/elsewhere"]
    await tokens.stop()


async def test_a_token_that_was_let_in_expires_by_the_clock(issuer: Issuer) -> None:
    clock = Clock(time.time())
    tokens = TokenAuthenticator(issuer.settings(leeway_seconds=0), now=clock)
    await tokens.start()
    token = issuer.token(exp=int(clock.at) + 300)
    principal = await tokens.authenticate(token)
    assert tokens.is_valid(principal)
    clock.at += 301
    assert not tokens.is_valid(principal)
    async with asyncio.timeout(1):
        await tokens.until_invalid(principal)
    await tokens.stop()


async def test_a_stream_is_told_of_the_expiry_of_its_token(issuer: Issuer) -> None:
    clock = Clock(int(time.time()) + 299.9)
    tokens = TokenAuthenticator(issuer.settings(leeway_seconds=0), now=clock)
    await tokens.start()
    principal = await tokens.authenticate(issuer.token(exp=int(clock.at) + 1))
    told = asyncio.create_task(tokens.until_invalid(principal))
    # It waits for as long as the token has left: the clock goes on meanwhile.
    await asyncio.sleep(0)
    assert not told.done()
    clock.at += 0.1
    async with asyncio.timeout(20):
        await told
    assert not tokens.is_valid(principal)
    await tokens.stop()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"audience": None}, "HEADRACE_AUTH_AUDIENCE"),
        ({"issuer": None}, "HEADRACE_AUTH_ISSUER"),
        ({"issuer": "http://issuer.example"}, "HEADRACE_AUTH_ISSUER"),
        ({"issuer": "file:///etc"}, "HEADRACE_AUTH_ISSUER"),
        ({"jwks_url": "http://issuer.example/keys"}, "HEADRACE_AUTH_JWKS_URL"),
    ],
)
def test_settings_that_make_no_sense_are_told(values: dict[str, Any], named: str) -> None:
    given = Issuer("https://issuer.example").settings(**values)
    with pytest.raises(ConfigurationError, match=named):
        TokenAuthenticator(given)
