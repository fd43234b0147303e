"""What is wrong with a connection.

aiokafka answers every failure at the start with the same error. Here each address is tried by a connection of its own, and a
failure is told apart: nothing there, no Kafka there, the wrong kind of listener, an untrusted certificate, refused credentials.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.conn import AIOKafkaConnection, get_ip_port_afi
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from headrace.errors import BrokerAuthenticationFailed, BrokerCertificateUntrusted, BrokerError, BrokerUnreachable
from headrace.settings import KafkaSettings, environment_variable

_SECOND_LOOK_SECONDS = 2.0
_STRAGGLERS_SECONDS = 0.1
_RANK = {BrokerAuthenticationFailed: 2, BrokerCertificateUntrusted: 1}


def _variable(field_name: str) -> str:
    return environment_variable(KafkaSettings, field_name)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a broker listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """host, host:port or [IPv6 address]:port.

        Raises:
            ValueError: it is none of these.
        """
        host, port, _ = get_ip_port_afi(text)
        if not host or not 0 < port < 65_536:
            raise ValueError(text)
        return cls(host, port)

    @property
    def text(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address that answers, and the addresses at which the cluster says that its brokers are."""

    address: Address
    advertised: tuple[Address, ...]


async def find_reachable(addresses: Sequence[Address], security: Mapping[str, Any], deadline: float) -> list[Endpoint]:
    """Those of the addresses at which a broker can be used; at least one.

    Raises:
        BrokerUnreachable, BrokerAuthenticationFailed, BrokerCertificateUntrusted: there is none. Of several reasons, the one
            that the user can do most about.
    """
    timeout = max(0.1, deadline - asyncio.get_running_loop().time())
    probes = [asyncio.create_task(probe(address, security, timeout)) for address in addresses]
    try:
        pending = set(probes)
        while pending and not any(_succeeded(task) for task in probes):
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        if pending:
            # One that says nothing must not hold up the others.
            await asyncio.wait(pending, timeout=_STRAGGLERS_SECONDS)
    finally:
        for task in probes:
            task.cancel()
        await asyncio.wait(probes)
    if endpoints := [task.result() for task in probes if _succeeded(task)]:
        return endpoints
    errors: list[BrokerError] = []
    for task in probes:
        try:
            task.result()
        except BrokerError as error:
            errors.append(error)
    worst = max(errors, key=lambda error: _RANK.get(type(error), 0))
    if len(errors) == 1 or type(worst) is not BrokerUnreachable:
        raise worst
    raise BrokerUnreachable(" ".join(str(error) for error in errors))


def _succeeded(task: asyncio.Task[Endpoint]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


async def probe(address: Address, security: Mapping[str, Any], timeout: float) -> Endpoint:
    """Connects, proves who we are, and asks where the brokers are. Names no topic.

    Raises:
        BrokerUnreachable, BrokerAuthenticationFailed, BrokerCertificateUntrusted: what is wrong, and what to do.
    """
    found = await _talk(address, security, timeout)
    if isinstance(found, _Failure) and found.was_cut_short:
        # Somebody answers, and time was up before all was said, as on a machine that is busy: the rest tells what is wrong.
        again = await _talk(address, security, _SECOND_LOOK_SECONDS)
        if isinstance(again, Endpoint) or not isinstance(again.error, TimeoutError):
            found = again
    if isinstance(found, _Failure):
        raise await _explain(found) from found.error
    return found


async def _talk(address: Address, security: Mapping[str, Any], timeout: float) -> Endpoint | _Failure:
    connection = AIOKafkaConnection(address.host, address.port, request_timeout_ms=timeout * 1000, **security)
    try:
        async with asyncio.timeout(timeout):
            await connection.connect()
            metadata = await connection.send(MetadataRequest([]))
    except (KafkaError, OSError, EOFError, TimeoutError, ValueError, AssertionError) as error:
        return _Failure(address, security, timeout, error, bool(connection._versions), connection._protocol is not None)
    finally:
        await _close(connection)
    return Endpoint(address, tuple(Address(broker[1], broker[2]) for broker in metadata.brokers))


async def unreachable_advertised(endpoint: Endpoint, security: Mapping[str, Any]) -> BrokerError | None:
    """What is wrong when a broker answers at its address, but not at the one it gives to clients; None when it does."""
    for address in endpoint.advertised:
        try:
            await probe(address, security, _SECOND_LOOK_SECONDS)
        except BrokerError as error:
            if address == endpoint.address:
                return error
            return type(error)(
                f"{endpoint.address.text} answers, and sends clients on to {address.text}, where: {error} Set the broker's "
                f"advertised.listeners to an address that is reachable from here."
            )
    return None


@dataclass(frozen=True, slots=True)
class _Failure:
    address: Address
    security: Mapping[str, Any]
    timeout: float
    error: BaseException
    kafka_answered: bool
    connected: bool

    @property
    def protocol(self) -> str:
        return str(self.security["security_protocol"])

    @property
    def was_cut_short(self) -> bool:
        """Whether time was up though the other side had answered: by Kafka's protocol, or else by a handshake of TLS."""
        answered = self.kafka_answered or (self.connected and self.protocol.endswith("SSL"))
        return answered and isinstance(self.error, TimeoutError)

    @property
    def causes(self) -> list[BaseException]:
        chain: list[BaseException] = []
        error: BaseException | None = self.error
        while error is not None and error not in chain:
            chain.append(error)
            error = error.__cause__
        return chain


async def _explain(failure: _Failure) -> BrokerError:
    known = _explain_network(failure) or _explain_credentials(failure) or _explain_certificate(failure)
    if known is not None:
        return known
    # A listener of the wrong kind hangs up at once: only then is it worth another look.
    if isinstance(failure.error, TimeoutError):
        return _no_answer(failure)
    return await (_explain_tls_client(failure) if failure.protocol.endswith("SSL") else _explain_plain_client(failure))


def _explain_network(failure: _Failure) -> BrokerError | None:
    where, error = failure.address.text, failure.error
    advice = "Is the broker up, and KAFKA_BOOTSTRAP_SERVERS right?"
    if isinstance(error, socket.gaierror):
        return BrokerUnreachable(f"{where}: the name {failure.address.host} is not known. Look at KAFKA_BOOTSTRAP_SERVERS.")
    if isinstance(error, ConnectionRefusedError) or "Multiple exceptions" in str(error):
        return BrokerUnreachable(f"{where}: nothing listens there (connection refused). {advice}")
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError | ConnectionError | TimeoutError):
        return BrokerUnreachable(f"{where}: {error.strerror or error}. {advice}")
    return None


def _explain_credentials(failure: _Failure) -> BrokerError | None:
    where, error = failure.address.text, failure.error
    mechanism, user = failure.security.get("sasl_mechanism"), failure.security.get("sasl_plain_username")
    variables = f"{_variable('sasl_username')}, {_variable('sasl_password')} and {_variable('sasl_mechanism')}"
    if isinstance(error, SaslAuthenticationFailed):
        return BrokerAuthenticationFailed(
            f"{where}: the broker refuses user {user!r} by {mechanism}. Look at {variables}; is it a user of this broker?"
        )
    if isinstance(error, UnsupportedSaslMechanismError):
        return BrokerAuthenticationFailed(
            f"{where}: the broker does not take {mechanism}. Set {_variable('sasl_mechanism')} to one that it offers."
        )
    if isinstance(error, IllegalSaslStateError):
        plain = failure.protocol.removeprefix("SASL_")
        return BrokerAuthenticationFailed(
            f"{where}: this listener takes no user name. Set {_variable('security_protocol')} to "
            f"{'SSL' if plain == 'SSL' else 'PLAINTEXT'}, or use the port of a listener with SASL."
        )
    if failure.kafka_answered and failure.protocol.startswith("SASL"):
        return BrokerAuthenticationFailed(
            f"{where}: the broker ended the connection while user {user!r} logged in by {mechanism}. Look at {variables}."
        )
    if failure.kafka_answered and not isinstance(error, TimeoutError):
        protocol = "SASL_SSL" if failure.protocol == "SSL" else "SASL_PLAINTEXT"
        return BrokerAuthenticationFailed(
            f"{where}: the broker answers, and ends the connection at the first request: it asks for a user name. Set "
            f"{_variable('security_protocol')}={protocol} and {variables}."
        )
    return None


def _explain_certificate(failure: _Failure) -> BrokerError | None:
    where = failure.address.text
    for error in failure.causes:
        if isinstance(error, ssl.SSLCertVerificationError):
            if "hostname" in error.verify_message.lower() or "ip address" in error.verify_message.lower():
                advice = (
                    "Use a host name that the certificate has, in KAFKA_BOOTSTRAP_SERVERS and the broker's advertised.listeners."
                )
            else:
                advice = f"Set {_variable('ssl_ca_file')} to a PEM file with the authority that signed it."
            return BrokerCertificateUntrusted(
                f"{where}: the broker's certificate is not trusted: {error.verify_message}. {advice}"
            )
        if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or "").upper():
            return BrokerAuthenticationFailed(
                f"{where}: the broker refuses this client's certificate, or misses one ({error.reason}). Set "
                f"{_variable('ssl_certificate_file')} and {_variable('ssl_key_file')} to one that it trusts."
            )
    return None


async def _explain_tls_client(failure: _Failure) -> BrokerError:
    where = failure.address.text
    if await _speaks_plaintext(failure.address):
        protocol = "SASL_PLAINTEXT" if failure.protocol.startswith("SASL") else "PLAINTEXT"
        return BrokerUnreachable(
            f"{where}: this listener speaks no TLS. Set {_variable('security_protocol')}={protocol}, or use "
            f"the port of a listener that does."
        )
    return BrokerUnreachable(f"{where}: no TLS connection comes about ({failure.error}). Is this the port of a Kafka listener?")


async def _explain_plain_client(failure: _Failure) -> BrokerError:
    where = failure.address.text
    if not failure.kafka_answered and await _speaks_tls(failure.address):
        protocol = "SASL_SSL" if failure.protocol.startswith("SASL") else "SSL"
        return BrokerUnreachable(
            f"{where}: this listener speaks TLS. Set {_variable('security_protocol')}={protocol} "
            f"(SASL_SSL if it asks for a user name)."
        )
    return BrokerUnreachable(f"{where}: something listens there, but it is no Kafka broker. Look at KAFKA_BOOTSTRAP_SERVERS.")


def _no_answer(failure: _Failure) -> BrokerError:
    return BrokerUnreachable(
        f"{failure.address.text}: no answer within {failure.timeout:.1f} s. Is the address right, and no firewall between?"
    )


async def _speaks_plaintext(address: Address) -> bool:
    connection = AIOKafkaConnection(address.host, address.port, request_timeout_ms=_SECOND_LOOK_SECONDS * 1000)
    try:
        async with asyncio.timeout(_SECOND_LOOK_SECONDS):
            await connection.connect()
    except (KafkaConnectionError, OSError, EOFError, TimeoutError):
        return False
    finally:
        await _close(connection)
    return True


async def _close(connection: Any) -> None:
    closed = connection.close()
    if closed is not None and connection._protocol is not None:
        await asyncio.wait({closed}, timeout=1)


async def _speaks_tls(address: Address) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Nothing is sent over it: this only asks which kind of listener it is.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(_SECOND_LOOK_SECONDS):
            _, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "").upper()
    except (OSError, EOFError, TimeoutError):
        return False
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
