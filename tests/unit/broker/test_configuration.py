"""What a node is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.broker.configuration import (
    LocalBrokerOptions,
    NodeConfiguration,
    SecurityOptions,
    listener_names,
    node_properties,
    render_properties,
)
from headrace.errors import ConfigurationError


def configuration(
    options: LocalBrokerOptions | None = None, *, node_id: int = 1, voters: int = 1, directory: str = "/data"
) -> NodeConfiguration:
    chosen = options or LocalBrokerOptions()
    return NodeConfiguration(
        node_id=node_id,
        ports={name: 9000 + index for index, name in enumerate(listener_names(chosen))},
        voters={number: 9100 + number for number in range(1, voters + 1)},
        log_directory=Path(directory),
        options=chosen,
    )


def test_a_node_alone_keeps_one_copy() -> None:
    properties = node_properties(configuration())
    assert properties["controller.quorum.voters"] == "1@127.0.0.1:9101"
    assert properties["listeners"] == "PLAINTEXT://127.0.0.1:9000,CONTROLLER://127.0.0.1:9001"
    assert properties["advertised.listeners"] == "PLAINTEXT://127.0.0.1:9000"
    assert properties["offsets.topic.replication.factor"] == "1"
    assert properties["min.insync.replicas"] == "1"
    assert properties["auto.create.topics.enable"] == "true"


def test_a_node_among_three_keeps_three_copies_and_knows_the_others() -> None:
    properties = node_properties(configuration(node_id=2, voters=3))
    assert properties["node.id"] == "2"
    assert properties["controller.quorum.voters"] == "1@127.0.0.1:9101,2@127.0.0.1:9102,3@127.0.0.1:9103"
    assert properties["transaction.state.log.replication.factor"] == "3"
    assert properties["min.insync.replicas"] == "2"


def test_topics_need_not_come_by_themselves() -> None:
    options = LocalBrokerOptions(automatic_topic_creation=False)
    assert node_properties(configuration(options))["auto.create.topics.enable"] == "false"


def test_the_callers_settings_win() -> None:
    options = LocalBrokerOptions(properties={"broker.session.timeout.ms": "9000"})
    assert node_properties(configuration(options))["broker.session.timeout.ms"] == "9000"


def test_a_comma_in_the_directory_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="comma"):
        node_properties(configuration(directory="/data,more"))


def test_each_secure_protocol_gets_a_listener() -> None:
    security = SecurityOptions(protocols=("SASL_PLAINTEXT", "SSL"), users={"alice": 'with "quotes"'}, keystore=Path("/store.p12"))
    properties = node_properties(configuration(LocalBrokerOptions(security=security)))
    assert properties["listeners"].split(",")[1:3] == ["SASL_PLAINTEXT://127.0.0.1:9001", "SSL://127.0.0.1:9002"]
    # A certificate names the host, so a client must be sent to that name.
    assert properties["advertised.listeners"].split(",")[2] == "SSL://localhost:9002"
    assert 'user_alice="with \\"quotes\\""' in properties["listener.name.sasl_plaintext.plain.sasl.jaas.config"]
    assert properties["listener.name.ssl.ssl.keystore.location"] == "/store.p12"
    assert "listener.name.ssl.ssl.client.auth" not in properties


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"protocols": ("PLAIN",)}, "Unknown security protocols"),
        ({"protocols": ("SSL",)}, "keystore"),
        ({"protocols": ("SASL_PLAINTEXT",)}, "user"),
    ],
)
def test_security_that_cannot_work_is_refused(wrong: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SecurityOptions(protocols=wrong["protocols"])


def test_a_user_whose_name_would_end_the_setting_is_refused() -> None:
    security = SecurityOptions(protocols=("SASL_PLAINTEXT",), users={'a" b': "secret"})
    with pytest.raises(ConfigurationError, match="letters, digits"):
        node_properties(configuration(LocalBrokerOptions(security=security)))


def test_values_survive_javas_reading_of_a_properties_file() -> None:
    assert render_properties({"a": "/Büro/数据/x y"}) == "a=/B\\u00fcro/\\u6570\\u636e/x y\n"
    assert render_properties({"a": "C:\\x"}) == "a=C:\\\\x\n"
    assert render_properties({"a": " led by a blank"}) == "a=\\ led by a blank\n"
    assert render_properties({"a": "two\nlines 😀"}) == "a=two\\u000alines \\ud83d\\ude00\n"
