"""A Kafka broker for whoever needs one on this machine: found, or started."""

from headrace.broker.base import Broker, BrokerKind, ForeignBroker, OwnedBroker
from headrace.broker.configuration import LocalBrokerOptions, SecurityOptions
from headrace.broker.discovery import resolve_bootstrap_servers
from headrace.broker.local import LocalBroker, fetch_local_broker, start_local_broker
from headrace.broker.provide import BrokerRequest, provide_broker

__all__ = [
    "Broker",
    "BrokerKind",
    "BrokerRequest",
    "ForeignBroker",
    "LocalBroker",
    "LocalBrokerOptions",
    "OwnedBroker",
    "SecurityOptions",
    "fetch_local_broker",
    "provide_broker",
    "resolve_bootstrap_servers",
    "start_local_broker",
]
