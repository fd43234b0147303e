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
