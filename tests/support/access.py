"""What tests of who may do what need: principals, an audit that remembers, API keys in memory, and an issuer of tokens."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from headrace.settings import AuthSettings
from headrace_gateway.access import ALL_SCOPES, Arrival, Audited, Principal

HERE = Arrival("http", "127.0.0.1")
AUDIENCE = "headrace"


def a_principal(subject: str = "ann", **values: Any) -> Principal:
    """Somebody who may do everything, unless it is said otherwise."""
    return Principal(**{"subject": subject, "scopes": ALL_SCOPES, "credential": "test", **values})


class RememberedAudit:
    """An audit that keeps what it was told.

    Attributes:
        told: that, in order.
    """

    def __init__(self) -> None:
        self.told: list[Audited] = []

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    def write(self, audited: Audited) -> None:
        # As it is now: what is set later comes too late for the log.
        self.told.append(replace(audited))

    @property
    def outcomes(self) -> list[str]:
        return [audited.outcome for audited in self.told]


@dataclass
class Clock:
    """A clock that stands still until it is told otherwise; seconds."""

    at: float = 1_000_000.0

    def __call__(self) -> float:
        return self.at


@dataclass
class Issuer:
    """Makes tokens, and publishes the keys by which they are checked, at a real address of this machine.

    Attributes:
        published: the private keys whose public halves it publishes, by id.
        asked: the paths that it was asked for, in order.
        ill: answers nothing but errors while set.
        slow: answers nothing until it is set, if it is there.
    """

    url: str = ""
    published: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    ill: bool = False
    slow: threading.Event | None = None

    def settings(self, **values: Any) -> AuthSettings:
        return AuthSettings(**{"issuer": self.url, "audience": AUDIENCE, **values})

    def token(
        self,
        *,
        key: Any = None,
        key_id: str | None = "rsa",
        algorithm: str = "RS256",
        headers: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """A token that counts, unless it is said otherwise; a claim that is None is left out."""
        given = {"iss": self.url, "aud": AUDIENCE, "sub": "ann", "exp": int(time.time()) + 300, "scope": "jobs:read jobs:write"}
        kept = {name: value for name, value in (given | claims).items() if value is not None}
        kid = {} if key_id is None else {"kid": key_id}
        return jwt.encode(kept, key or self.published[key_id or "rsa"], algorithm=algorithm, headers={**kid, **(headers or {})})

    def answer(self, path: str) -> Any:
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        return {"keys": [{**public_jwk(key), "kid": key_id} for key_id, key in self.published.items()]}


def public_jwk(key: Any) -> dict[str, Any]:
    """The public half of a key, as issuers publish it."""
    algorithm: dict[type[Any], Any] = {
        rsa.RSAPrivateKey: RSAAlgorithm,
        ec.EllipticCurvePrivateKey: ECAlgorithm,
        ed25519.Ed25519PrivateKey: OKPAlgorithm,
    }
    made = next(made for kind, made in algorithm.items() if isinstance(key, kind))
    found: dict[str, Any] = made.to_jwk(key.public_key(), as_dict=True)
    return found


def new_rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65_537, key_size=2048)


def unsigned(claims: dict[str, Any]) -> str:
    """A token with the algorithm `none`."""
    parts = [json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT", "kid": "rsa"}, claims)]
    return ".".join([base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts]) + "."


@contextmanager
def running_issuer() -> Iterator[Issuer]:
    """An issuer with an RSA, an EC and an Ed25519 key."""
    issuer = Issuer(
        published={
            "rsa": new_rsa_key(),
            "ec": ec.generate_private_key(ec.SECP256R1()),
            "ed": ed25519.Ed25519PrivateKey.generate(),
        }
    )

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked.append(self.path)
            if issuer.slow is not None:
                issuer.slow.wait(20)
            body = json.dumps(issuer.answer(self.path)).encode()
            self.send_response(500 if issuer.ill else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        issuer.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield issuer
        finally:
            server.shutdown()
            thread.join()
