"""aiokafka's messages while a broker is away: once, and not at every attempt."""

from __future__ import annotations

import logging

import pytest

from headrace.kafka.noise import bound_noise


@pytest.fixture
def logger(caplog: pytest.LogCaptureFixture) -> logging.Logger:
    bound_noise()
    bound_noise()
    caplog.set_level(logging.DEBUG, logger="aiokafka")
    return logging.getLogger("aiokafka.producer.sender")


def test_a_message_is_logged_once_whatever_it_is_about(logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    for partition in range(20):
        logger.warning("Partition %s has moved away, at the first telling", partition)
    assert [record.args for record in caplog.records] == [(0,)]


def test_each_message_is_logged(logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    for message in ("First of two different things", "Second of two different things"):
        logger.error(message)
    assert len(caplog.records) == 2


def test_a_message_comes_again_after_a_while(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000.0]
    monkeypatch.setattr("headrace.kafka.noise.monotonic", lambda: now[0])
    for at in (1_000.0, 1_029.0, 1_031.0, 1_032.0):
        now[0] = at
        logger.error("The broker is away, says the clock test")
    assert len(caplog.records) == 2


def test_details_are_left_alone(logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(5):
        logger.debug("A detail")
    assert len(caplog.records) == 5


def test_a_message_that_keeps_coming_is_logged_less_and_less_often_until_it_stops(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [2_000.0]
    monkeypatch.setattr("headrace.kafka.noise.monotonic", lambda: now[0])

    def said_during(seconds: int) -> list[float]:
        """When the message got through that comes every second for so long, counted from the first."""
        begun, found = now[0], []
        for _ in range(seconds):
            caplog.clear()
            logger.error("The broker is away for long, says the clock test")
            if caplog.records:
                found.append(now[0] - begun)
            now[0] += 1
        return found

    assert said_during(300) == [0, 30, 90, 210]
    now[0] += 30
    assert said_during(100) == [0, 30, 90], "another outage is as new as the first"


@pytest.mark.parametrize(
    "name",
    [
        "aiokafka.cluster",
        "aiokafka.conn",
        "aiokafka.consumer.consumer",
        "aiokafka.consumer.subscription_state",
        "aiokafka.producer.producer",
    ],
)
def test_every_logger_of_the_client_is_bound(caplog: pytest.LogCaptureFixture, name: str) -> None:
    bound_noise()
    for _ in range(3):
        logging.getLogger(name).error("Something of this logger's own")
    assert len(caplog.records) == 1
