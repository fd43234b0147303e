"""How a client proves who it is, and what it says when it is not let in."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import (
    BrokerAuthenticationFailed,
    BrokerCertificateUntrusted,
    BrokerError,
    BrokerNotConfigured,
    BrokerUnreachable,
    ConfigurationError,
)
from headrace.kafka import KafkaLog, connection
from headrace.kafka.diagnosis import Address, Endpoint, unreachable_advertised
from headrace.ports import NewRecord, TopicPartition
from headrace.settings import KafkaSettings, load_settings
from support.broker import SecureBroker, secure_broker
from support.log import numbers_of, plain_topic, read_topic, started

ALICE: dict[str, Any] = {"sasl_username": "alice", "sasl_password": "alice-secret"}


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    with secure_broker(tmp_path_factory.mktemp("certificates"), require_client_certificates=True) as started_broker:
        yield started_broker


def log_for(servers: str, *, seconds: float = 20.0, **kafka: Any) -> KafkaLog:
    return KafkaLog(load_settings(bootstrap_servers=servers, kafka=KafkaSettings(connect_timeout_seconds=seconds, **kafka)))


async def refusal(log: KafkaLog) -> BrokerError:
    """What each kind of client says; they all must say the same."""
    errors = []
    for start in (log.topic_names, log.writer().start, log.reader().start):
        with pytest.raises(BrokerError) as caught:
            await start()
        errors.append(caught.value)
    await log.close()
    assert len({type(error) for error in errors}) == 1
    return errors[0]


@contextlib.asynccontextmanager
async def server_that(answers: bytes | None, *, times: int | None = None) -> AsyncIterator[str]:
    """A server that is no Kafka: answers all the same and hangs up, every time or so often, or says nothing at all."""
    writers = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        if answers is not None and (times is None or len(writers) <= times):
            await reader.read(1)
            writer.write(answers)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def way_that_hides_the_first_end(address: str) -> AsyncIterator[str]:
    """A way to a broker on which the end of the first connection does not come through, as if the broker were that busy."""
    host, _, port = address.rpartition(":")
    ways: list[asyncio.Task[None]] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine = asyncio.current_task()
        assert mine is not None
        ways.append(mine)
        from_broker, to_broker = await asyncio.open_connection(host, int(port))
        outward = asyncio.create_task(carry(reader, to_broker))
        try:
            with contextlib.suppress(ConnectionError):
                await carry(from_broker, writer)
            if mine is ways[0]:
                await outward
        finally:
            outward.cancel()
            for each in (writer, to_broker):
                each.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left_of_other_tests() -> None:
    """What they have not closed is told of when it is let go, and that is here and now."""
    gc.collect()


@pytest.fixture
def no_second_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first attempt finds out is told: it may take all of the time, and no other attempt is made until that is over."""
    monkeypatch.setattr(connection, "_RETRY_SECONDS", 60.0)


@pytest.fixture(autouse=True)
def nothing_is_logged_as_an_error(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The one error that is raised says it all."""
    caplog.set_level(logging.DEBUG, logger="aiokafka")
    yield
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def use(log: KafkaLog, topic: str) -> None:
    """Makes a topic, writes to it and reads it."""
    await log.create_topics([plain_topic(topic)])
    async with started(log.writer()) as writer:
        await writer.append(TopicPartition(topic, 0), NewRecord(b"key", b"1"), timeout=20)
    assert numbers_of((await read_topic(log, topic, 1))[TopicPartition(topic, 0)]) == [1]
    await log.close()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
async def test_a_user_is_let_in(secure: SecureBroker, namespace: str, protocol: str, mechanism: str) -> None:
    log = log_for(
        secure.broker.address(protocol),
        security_protocol=protocol,
        sasl_mechanism=mechanism,
        ssl_ca_file=secure.server.certificate,
        **ALICE,
    )
    await use(log, f"{namespace}.topic")


async def test_a_certificate_lets_a_client_in(secure: SecureBroker, namespace: str) -> None:
    log = log_for(
        secure.broker.address("SSL"),
        security_protocol="SSL",
        ssl_ca_file=secure.server.certificate,
        ssl_certificate_file=secure.client.certificate,
        ssl_key_file=secure.client.key,
    )
    await use(log, f"{namespace}.topic")


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_a_wrong_password(secure: SecureBroker, mechanism: str) -> None:
    log = log_for(
        secure.broker.address("SASL_PLAINTEXT"),
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism=mechanism,
        sasl_username="alice",
        sasl_password="guessed-word",
    )
    error = await refusal(log)
    assert type(error) is BrokerAuthenticationFailed
    assert secure.broker.address("SASL_PLAINTEXT") in str(error)
    assert f"refuses user 'alice' by {mechanism}" in str(error)
    assert "HEADRACE_KAFKA_SASL_PASSWORD" in str(error)
    assert "guessed-word" not in str(error)


async def test_a_certificate_that_nobody_vouches_for(secure: SecureBroker) -> None:
    log = log_for(
        secure.broker.address("SASL_SSL"), security_protocol="SASL_SSL", ssl_ca_file=secure.stranger.certificate, **ALICE
    )
    error = await refusal(log)
    assert type(error) is BrokerCertificateUntrusted
    assert secure.broker.address("SASL_SSL") in str(error)
    assert "HEADRACE_KAFKA_SSL_CA_FILE" in str(error)


async def test_a_certificate_for_another_host(secure: SecureBroker) -> None:
    # The certificate has localhost and 127.0.0.1; all of 127.0.0.0/8 is this machine.
    port = secure.broker.address("SASL_SSL").rpartition(":")[2]
    log = log_for(f"0.0.0.0:{port}", security_protocol="SASL_SSL", ssl_ca_file=secure.server.certificate, **ALICE)
    error = await refusal(log)
    assert type(error) is BrokerCertificateUntrusted
    assert "advertised.listeners" in str(error)


async def test_nobody_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        error = await refusal(log_for(f"127.0.0.1:{port}", seconds=0.5))
    assert type(error) is BrokerUnreachable
    assert f"127.0.0.1:{port}" in str(error)
    assert "KAFKA_BOOTSTRAP_SERVERS" in str(error)


async def test_a_name_that_nobody_knows() -> None:
    error = await refusal(log_for("nowhere.invalid:9092", seconds=0.5))
    assert type(error) is BrokerUnreachable
    assert "nowhere.invalid" in str(error)


async def test_several_addresses_and_nobody_anywhere() -> None:
    error = await refusal(log_for("nowhere.invalid:9092, 127.0.0.1:1", seconds=0.5))
    assert type(error) is BrokerUnreachable
    assert "nowhere.invalid:9092" in str(error)
    assert "127.0.0.1:1" in str(error)


async def test_one_address_of_several_is_enough(secure: SecureBroker) -> None:
    loop = asyncio.get_running_loop()
    async with server_that(answers=None) as silent:
        log = log_for(f"127.0.0.1:1,{silent},{secure.broker.bootstrap_servers},nowhere.invalid:9092", seconds=60)
        begun = loop.time()
        assert isinstance(await log.topic_names(), set)
        assert loop.time() - begun < 30
    await log.close()


async def test_a_broker_that_sends_its_clients_astray(secure: SecureBroker) -> None:
    answering = Address.parse(secure.broker.bootstrap_servers)
    error = await unreachable_advertised(Endpoint(answering, (Address("127.0.0.1", 1),)), {"security_protocol": "PLAINTEXT"})
    assert type(error) is BrokerUnreachable
    assert answering.text in str(error)
    assert "127.0.0.1:1" in str(error)
    assert "advertised.listeners" in str(error)


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL"])
async def test_a_server_that_says_nothing(protocol: str) -> None:
    loop = asyncio.get_running_loop()
    async with server_that(answers=None) as address:
        begun = loop.time()
        with pytest.raises(BrokerUnreachable, match=f"{address}: no answer within"):
            await log_for(address, seconds=1.0, security_protocol=protocol).topic_names()
        assert loop.time() - begun < 20


@pytest.mark.usefixtures("no_second_attempt")
@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL"])
async def test_a_server_that_is_no_broker(protocol: str) -> None:
    async with server_that(answers=b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        error = await refusal(log_for(address, security_protocol=protocol))
    assert type(error) is BrokerUnreachable
    assert address in str(error)


@pytest.mark.usefixtures("no_second_attempt")
@pytest.mark.parametrize(
    ("protocol", "listener", "expected", "advice"),
    [
        ("PLAINTEXT", "SASL_SSL", BrokerUnreachable, "HEADRACE_KAFKA_SECURITY_PROTOCOL=SSL"),
        ("SASL_PLAINTEXT", "SASL_SSL", BrokerUnreachable, "HEADRACE_KAFKA_SECURITY_PROTOCOL=SASL_SSL"),
        ("PLAINTEXT", "SSL", BrokerUnreachable, "HEADRACE_KAFKA_SECURITY_PROTOCOL=SSL"),
        ("SSL", "PLAINTEXT", BrokerUnreachable, "HEADRACE_KAFKA_SECURITY_PROTOCOL=PLAINTEXT"),
        ("SASL_SSL", "SASL_PLAINTEXT", BrokerUnreachable, "HEADRACE_KAFKA_SECURITY_PROTOCOL=SASL_PLAINTEXT"),
        ("PLAINTEXT", "SASL_PLAINTEXT", BrokerAuthenticationFailed, "HEADRACE_KAFKA_SECURITY_PROTOCOL=SASL_PLAINTEXT"),
        ("SSL", "SASL_SSL", BrokerAuthenticationFailed, "HEADRACE_KAFKA_SECURITY_PROTOCOL=SASL_SSL"),
        ("SASL_PLAINTEXT", "PLAINTEXT", BrokerAuthenticationFailed, "HEADRACE_KAFKA_SECURITY_PROTOCOL to PLAINTEXT"),
        ("SSL", "SSL", BrokerAuthenticationFailed, "HEADRACE_KAFKA_SSL_CERTIFICATE_FILE"),
    ],
)
async def test_the_wrong_kind_of_listener(
    secure: SecureBroker, protocol: str, listener: str, expected: type[BrokerError], advice: str
) -> None:
    log = log_for(
        secure.broker.address(listener),
        security_protocol=protocol,
        ssl_ca_file=secure.server.certificate,
        **ALICE,
    )
    error = await refusal(log)
    assert type(error) is expected
    assert secure.broker.address(listener) in str(error)
    assert advice in str(error)


async def test_a_refusal_that_comes_when_time_is_up_is_told_all_the_same(secure: SecureBroker) -> None:
    async with way_that_hides_the_first_end(secure.broker.address("SASL_PLAINTEXT")) as address:
        log = log_for(address, seconds=2.0, security_protocol="PLAINTEXT")
        with pytest.raises(BrokerAuthenticationFailed, match="HEADRACE_KAFKA_SECURITY_PROTOCOL=SASL_PLAINTEXT"):
            await log.topic_names()
    await log.close()


async def test_what_is_known_is_told_though_the_last_attempt_got_no_answer() -> None:
    """Of an attempt and the second look after it; whoever comes then is told nothing."""
    async with server_that(answers=b"HTTP/1.1 400 Bad Request\r\n\r\n", times=2) as address:
        with pytest.raises(BrokerUnreachable, match=f"{address}: something listens there, but it is no Kafka broker"):
            await log_for(address, seconds=3.0).topic_names()


async def test_no_broker_is_named() -> None:
    with pytest.raises(BrokerNotConfigured, match="KAFKA_BOOTSTRAP_SERVERS"):
        KafkaLog(load_settings().model_copy(update={"bootstrap_servers": None}))


@pytest.mark.parametrize("servers", ["localhost:port", ":9092", "localhost:99999", " , "])
async def test_an_address_that_is_none(servers: str) -> None:
    with pytest.raises(ConfigurationError, match="KAFKA_BOOTSTRAP_SERVERS"):
        log_for(servers)


async def test_a_password_that_is_missing() -> None:
    with pytest.raises(ConfigurationError, match="HEADRACE_KAFKA_SASL_PASSWORD"):
        log_for("localhost:9092", security_protocol="SASL_SSL", sasl_username="alice")


async def test_files_that_cannot_be_used(tmp_path: Path, secure: SecureBroker) -> None:
    with pytest.raises(ConfigurationError, match=r"HEADRACE_KAFKA_SSL_CA_FILE names .*missing"):
        log_for("localhost:9092", security_protocol="SSL", ssl_ca_file=tmp_path / "missing.pem")
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    with pytest.raises(ConfigurationError, match="HEADRACE_KAFKA_SSL_CA_FILE"):
        log_for("localhost:9092", security_protocol="SSL", ssl_ca_file=empty)
    with pytest.raises(ConfigurationError, match="HEADRACE_KAFKA_SSL_KEY_FILE"):
        log_for(
            "localhost:9092",
            security_protocol="SSL",
            ssl_certificate_file=secure.client.certificate,
            ssl_key_file=secure.stranger.key,
        )
