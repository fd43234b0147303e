"""When a broker is ready, and whose it is."""

from __future__ import annotations

import time
from collections.abc import Callable

from headrace.broker.wire import GROUP_COORDINATOR, TRANSACTION_COORDINATOR, BrokerConnection, ClusterDescription, WireError

# The group and the transactional id that are asked about; nothing else uses them.
READINESS_KEY = "headrace-readiness"
POLL_SECONDS = 0.02
ANSWER_SECONDS = 5.0


def describe_cluster(bootstrap_servers: str, *, timeout_seconds: float) -> ClusterDescription | None:
    """Ask some brokers for their cluster, one after another until one answers, each for so long.

    None when none of them answers in Kafka's protocol, without security.
    """
    for server in bootstrap_servers.split(","):
        try:
            host, _, port = server.strip().rpartition(":")
            with BrokerConnection(host.strip("[]"), int(port), timeout_seconds=timeout_seconds) as connection:
                return connection.describe_cluster()
        except (OSError, WireError, ValueError):
            continue
    return None


def wait_until_ready(
    host: str, port: int, *, cluster_id: str, timeout_seconds: float, still_starting: Callable[[], bool]
) -> bool:
    """Wait until a broker serves topics, consumer groups and producers.

    Another cluster's broker at that address is not ready, however well it answers.

    Args:
        host: where it will listen.
        port: where it will listen.
        cluster_id: the cluster it must name.
        timeout_seconds: how long to wait.
        still_starting: asked before every try; False ends the wait.

    Returns:
        Whether it is ready.
    """
    deadline = time.monotonic() + timeout_seconds
    pending: list[Callable[[str, int, str], bool]] = [_names_cluster, _serves_groups, _serves_producers]
    while time.monotonic() < deadline and still_starting():
        # The later checks make Kafka create topics of its own; asking for both at once overlaps that.
        answered = []
        for check in pending:
            try:
                passed = check(host, port, cluster_id)
            except (OSError, WireError):
                passed = False
            if passed:
                answered.append(check)
            elif check is _names_cluster:
                break
        pending = [check for check in pending if check not in answered]
        if not pending:
            return True
        time.sleep(POLL_SECONDS)
    return False


def _names_cluster(host: str, port: int, cluster_id: str) -> bool:
    with BrokerConnection(host, port, timeout_seconds=ANSWER_SECONDS) as connection:
        description = connection.describe_cluster()
    return description.cluster_id == cluster_id and bool(description.broker_ids)


def _serves_groups(host: str, port: int, _cluster_id: str) -> bool:
    with BrokerConnection(host, port, timeout_seconds=ANSWER_SECONDS) as connection:
        found = connection.find_coordinator(READINESS_KEY, GROUP_COORDINATOR)
    if found.error_code:
        return False
    with BrokerConnection(found.host, found.port, timeout_seconds=ANSWER_SECONDS) as coordinator:
        return coordinator.fetch_offsets(READINESS_KEY) == 0


def _serves_producers(host: str, port: int, _cluster_id: str) -> bool:
    with BrokerConnection(host, port, timeout_seconds=ANSWER_SECONDS) as connection:
        found = connection.find_coordinator(READINESS_KEY, TRANSACTION_COORDINATOR)
    if found.error_code:
        return False
    with BrokerConnection(found.host, found.port, timeout_seconds=ANSWER_SECONDS) as coordinator:
        return coordinator.init_producer_id(READINESS_KEY) == 0
