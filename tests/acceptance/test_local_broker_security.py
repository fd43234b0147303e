"""The listeners that ask a client who it is, as tests of a client's settings use them."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError

from support.broker import SecureBroker, secure_broker


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    with secure_broker(tmp_path_factory.mktemp("certificates"), require_client_certificates=True) as started:
        yield started


async def send(topic: str, **settings: Any) -> None:
    producer = AIOKafkaProducer(**settings)
    try:
        await producer.start()
        await producer.send_and_wait(topic, b"hello")
    finally:
        await producer.stop()


def password(word: str = "alice-secret") -> dict[str, str]:
    return {"sasl_plain_username": "alice", "sasl_plain_password": word}


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
async def test_a_user_logs_in(secure: SecureBroker, protocol: str, mechanism: str) -> None:
    await send(
        "secured",
        bootstrap_servers=secure.broker.address(protocol),
        security_protocol=protocol,
        sasl_mechanism=mechanism,
        ssl_context=trusting(secure.server.certificate) if protocol == "SASL_SSL" else None,
        **password(),
    )


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_a_wrong_password_is_refused(secure: SecureBroker, mechanism: str) -> None:
    with pytest.raises(KafkaConnectionError):
        await send(
            "secured",
            bootstrap_servers=secure.broker.address("SASL_PLAINTEXT"),
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism=mechanism,
            **password("guessed"),
        )


async def test_a_client_shows_its_certificate(secure: SecureBroker) -> None:
    context = trusting(secure.server.certificate)
    context.load_cert_chain(secure.client.certificate, secure.client.key)
    await send("secured", bootstrap_servers=secure.broker.address("SSL"), security_protocol="SSL", ssl_context=context)


async def test_a_client_without_a_certificate_is_refused(secure: SecureBroker) -> None:
    with pytest.raises(KafkaConnectionError):
        await send(
            "secured",
            bootstrap_servers=secure.broker.address("SSL"),
            security_protocol="SSL",
            ssl_context=trusting(secure.server.certificate),
        )


async def test_a_stranger_does_not_vouch_for_the_server(secure: SecureBroker) -> None:
    with pytest.raises(KafkaConnectionError):
        await send(
            "secured",
            bootstrap_servers=secure.broker.address("SASL_SSL"),
            security_protocol="SASL_SSL",
            sasl_mechanism="PLAIN",
            ssl_context=trusting(secure.stranger.certificate),
            **password(),
        )
