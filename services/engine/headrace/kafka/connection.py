"""How clients of the cluster are made and started, by the settings."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from aiokafka.errors import KafkaError

from headrace.errors import BrokerError, BrokerNotConfigured, BrokerUnreachable, ConfigurationError
from headrace.kafka.closing import close_client
from headrace.kafka.diagnosis import Address, Endpoint, find_reachable, unreachable_advertised
from headrace.settings import KafkaSettings, Settings, environment_variable

ClientT = TypeVar("ClientT")

_RETRY_SECONDS = 0.25
_LEAST_SECONDS = 0.4


class Cluster:
    """The brokers of the settings, and how to reach them.

    Raises:
        BrokerNotConfigured: the settings name no broker.
        ConfigurationError: an address, a certificate or the credentials cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        if not settings.bootstrap_servers:
            raise BrokerNotConfigured(
                "No broker is named: set KAFKA_BOOTSTRAP_SERVERS, or the settings' bootstrap_servers, to host:port."
            )
        self.bootstrap_servers = settings.bootstrap_servers
        self.replication_factor = settings.kafka.replication_factor
        self.connect_timeout = settings.kafka.connect_timeout_seconds
        self._addresses = _addresses(settings.bootstrap_servers)
        self._security = _security_options(settings.kafka)

    async def connect(self, make: Callable[[dict[str, Any]], ClientT]) -> ClientT:
        """Makes a client of aiokafka and starts it, trying again until the connect timeout while no broker can be reached.

        Args:
            make: gets the options that all clients share.

        Raises:
            BrokerUnreachable, BrokerAuthenticationFailed, BrokerCertificateUntrusted: what is wrong, and what to do.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.connect_timeout
        known: BrokerUnreachable | None = None
        while True:
            try:
                return await self._attempt(make, deadline)
            except BrokerUnreachable as error:
                # Who asks for a moment only is told no more than that no answer came: the reason that is known is better.
                if known is None or not isinstance(error.__cause__, TimeoutError):
                    known = error
                if loop.time() + _RETRY_SECONDS + _LEAST_SECONDS >= deadline:
                    raise known from known.__cause__
            await asyncio.sleep(_RETRY_SECONDS)

    async def _attempt(self, make: Callable[[dict[str, Any]], ClientT], deadline: float) -> ClientT:
        # aiokafka knows one error for all that can go wrong, and logs each address that fails: it gets only those that work.
        endpoints = await find_reachable(self._addresses, self._security, deadline)
        servers = [endpoint.address.text for endpoint in endpoints]
        client = make({"bootstrap_servers": servers, **self._security})
        try:
            async with asyncio.timeout_at(deadline):
                await client.start()  # type: ignore[attr-defined]
        except BaseException as error:
            await close_client(client, timeout=0)
            if isinstance(error, KafkaError | OSError | TimeoutError):
                raise await self._explain(endpoints[0], error) from error
            raise
        return client

    async def _explain(self, endpoint: Endpoint, error: BaseException) -> BrokerError:
        advice = await unreachable_advertised(endpoint, self._security)
        if advice is not None:
            return advice
        what = (
            f"did not become usable within {self.connect_timeout:g} s" if isinstance(error, TimeoutError) else f"fails: {error}"
        )
        return BrokerUnreachable(f"{endpoint.address.text} answers, but the cluster {what}. Look at the brokers' own logs.")


def _addresses(servers: str) -> list[Address]:
    addresses = []
    for text in filter(None, (part.strip() for part in servers.split(","))):
        try:
            addresses.append(Address.parse(text))
        except ValueError:
            raise ConfigurationError(f"KAFKA_BOOTSTRAP_SERVERS has {text!r}, which is no host:port.") from None
    if not addresses:
        raise ConfigurationError(f"KAFKA_BOOTSTRAP_SERVERS names no broker: {servers!r}; it is host:port, with commas between.")
    return addresses


def _security_options(kafka: KafkaSettings) -> Mapping[str, Any]:
    options: dict[str, Any] = {"security_protocol": kafka.security_protocol}
    if kafka.security_protocol.startswith("SASL"):
        if kafka.sasl_username is None or kafka.sasl_password is None:
            raise ConfigurationError(
                f"{_variable('security_protocol')}={kafka.security_protocol} needs {_variable('sasl_username')} and "
                f"{_variable('sasl_password')} (or {_variable('sasl_password')}_FILE)."
            )
        options |= {
            "sasl_mechanism": kafka.sasl_mechanism,
            "sasl_plain_username": kafka.sasl_username,
            "sasl_plain_password": kafka.sasl_password.get_secret_value(),
        }
    if kafka.security_protocol.endswith("SSL"):
        options["ssl_context"] = _tls_context(kafka)
    return options


def _tls_context(kafka: KafkaSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=kafka.ssl_ca_file)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{_variable('ssl_ca_file')} names {kafka.ssl_ca_file}, which cannot be used: {error}. It must be a PEM file."
        ) from error
    if kafka.ssl_certificate_file is not None:
        password = kafka.ssl_key_password.get_secret_value() if kafka.ssl_key_password else None
        try:
            # A password of None would make OpenSSL ask for one at the terminal; an empty one fails instead.
            context.load_cert_chain(kafka.ssl_certificate_file, kafka.ssl_key_file, password or "")
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"The client's certificate {kafka.ssl_certificate_file} with the key {kafka.ssl_key_file or 'in the same file'} "
                f"cannot be used: {error}. Look at {_variable('ssl_certificate_file')}, {_variable('ssl_key_file')} and "
                f"{_variable('ssl_key_password')}."
            ) from error
    return context


def _variable(field_name: str) -> str:
    return environment_variable(KafkaSettings, field_name)
