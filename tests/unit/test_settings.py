"""Which variables a setting is read from, and what a wrong one is answered with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.errors import ConfigurationError
from headrace.settings import load_settings, unknown_variables


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("HEADRACE_") or name == "KAFKA_BOOTSTRAP_SERVERS":
            monkeypatch.delenv(name)


@pytest.mark.parametrize("other", ["BOOTSTRAP_SERVERS", "bootstrap_servers", "HEADRACE_BOOTSTRAP_SERVERS"])
def test_the_broker_is_named_by_one_variable_alone(monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    monkeypatch.setenv(other, "of-another-tool:1")
    assert load_settings().bootstrap_servers is None
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "ours:9092")
    assert load_settings().bootstrap_servers == "ours:9092"
    assert load_settings(bootstrap_servers="given:9092").bootstrap_servers == "given:9092"


@pytest.mark.parametrize("group", ["KAFKA", "ENGINE", "GATEWAY", "MEMORY", "OPENAI"])
def test_a_group_is_no_variable(monkeypatch: pytest.MonkeyPatch, group: str) -> None:
    monkeypatch.setenv(f"HEADRACE_{group}", "http://gateway.example:8787")
    unset = load_settings()
    monkeypatch.setenv(f"HEADRACE_{group}", '{"port": 1, "concurrency": 1, "model": "m"}')
    assert load_settings() == unset


def test_a_setting_of_a_group_is_read_and_an_empty_one_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_ENGINE_CONCURRENCY", "7")
    monkeypatch.setenv("HEADRACE_GATEWAY_PORT", "")
    settings = load_settings()
    assert (settings.engine.concurrency, settings.gateway.port) == (7, 8787)


def test_a_wrong_value_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_GATEWAY_PORT", "many")
    with pytest.raises(ConfigurationError, match="HEADRACE_GATEWAY_PORT = 'many'"):
        load_settings()


def test_a_log_level_may_be_written_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_LOG_LEVEL", "warning")
    assert load_settings().log_level == "WARNING"
    monkeypatch.setenv("HEADRACE_LOG_LEVEL", "loud")
    with pytest.raises(ConfigurationError, match="HEADRACE_LOG_LEVEL = 'loud'"):
        load_settings()


def test_a_secret_comes_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("from the file\n")
    monkeypatch.setenv("HEADRACE_KAFKA_SASL_PASSWORD_FILE", str(file))
    password = load_settings().kafka.sasl_password
    assert password is not None
    assert password.get_secret_value() == "from the file"
    monkeypatch.setenv("HEADRACE_KAFKA_SASL_PASSWORD", "from the variable")
    password = load_settings().kafka.sasl_password
    assert password is not None
    assert password.get_secret_value() == "from the variable"


@pytest.mark.parametrize("content", [None, b"hidden\xff"])
def test_an_unreadable_secret_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("HEADRACE_KAFKA_SASL_PASSWORD_FILE", str(file))
    with pytest.raises(ConfigurationError, match=f"HEADRACE_KAFKA_SASL_PASSWORD_FILE names {file}") as caught:
        load_settings()
    assert "hidden" not in str(caught.value)


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_DATA_DIRECTORY", "~/data")
    monkeypatch.setenv("HEADRACE_CACHE_DIRECTORY", "~/cache")
    settings = load_settings()
    assert (settings.data_directory, settings.cache_directory) == (Path.home() / "data", Path.home() / "cache")
    monkeypatch.setenv("HEADRACE_DATA_DIRECTORY", "~nobody-of-this-name/data")
    with pytest.raises(ConfigurationError, match="HEADRACE_DATA_DIRECTORY"):
        load_settings()


def test_a_misspelt_variable_is_told_with_the_name_that_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.startswith("HEADRACE_")]:
        monkeypatch.delenv(name)
    for name in ("HEADRACE_ENGINE_CONCURENCY", "HEADRACE_BOOTSTRAP_SERVERS", "HEADRACE_ZZZ"):
        monkeypatch.setenv(name, "1")
    for name in ("HEADRACE_ENGINE_PARTITIONS", "HEADRACE_OPENAI_API_KEY_FILE", "HEADRACE_NAMESPACE"):
        monkeypatch.setenv(name, "1")
    expected = {
        "HEADRACE_BOOTSTRAP_SERVERS": "KAFKA_BOOTSTRAP_SERVERS",
        "HEADRACE_ENGINE_CONCURENCY": "HEADRACE_ENGINE_CONCURRENCY",
        "HEADRACE_ZZZ": None,
    }
    assert unknown_variables() == expected
