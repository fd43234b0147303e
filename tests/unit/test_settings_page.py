"""`headrace settings`: the page of all settings is that of the code, and secrets are never shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headrace.cli.main import application
from headrace.cli.settings import MASK, Setting, configuration_page, groups, is_current, settings_of
from headrace.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
ALL: list[Setting] = [setting for _, group in groups() for setting in settings_of(group)]


def test_the_page_is_up_to_date() -> None:
    assert is_current(PAGE)


def test_every_setting_is_on_the_page_once_with_its_meaning() -> None:
    rows = [line for line in configuration_page().splitlines() if line.startswith("| `")]
    named = [re.findall(r"`([A-Z_]+)`", row.split("|")[1]) for row in rows]
    assert [variables[0] for variables in named] == [setting.variable for setting in ALL]
    assert all(len(row.split("|")[4].strip()) > 10 for row in rows)
    secrets = {variables[0] for variables in named if len(variables) == 2 and variables[1] == f"{variables[0]}_FILE"}
    assert secrets == {setting.variable for setting in ALL if setting.secret}
    assert "HEADRACE_KAFKA_SASL_PASSWORD" in secrets


def test_groups_are_all_there() -> None:
    assert [name for name, _ in groups()] == ["", "kafka", "engine", "gateway", "limits", "auth", "ingress", "memory", "openai"]
    assert dict(groups())[""] is Settings


def test_values_in_force_are_printed_and_secrets_masked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("hidden-1\n")
    monkeypatch.setenv("HEADRACE_KAFKA_SASL_PASSWORD_FILE", str(password))
    monkeypatch.setenv("HEADRACE_OPENAI_API_KEY", "hidden-2")
    monkeypatch.setenv("HEADRACE_GATEWAY_PORT", "9999")
    monkeypatch.delenv("HEADRACE_NAMESPACE", raising=False)
    result = CliRunner().invoke(application, ["settings"])
    lines = result.output.splitlines()
    assert result.exit_code == 0
    assert "hidden" not in result.output
    assert f"HEADRACE_KAFKA_SASL_PASSWORD={MASK}" in lines
    assert f"HEADRACE_OPENAI_API_KEY={MASK}" in lines
    assert "HEADRACE_GATEWAY_PORT=9999" in lines
    assert "HEADRACE_NAMESPACE=headrace  (default)" in lines
    assert len(lines) == len(ALL)


def test_a_wrong_value_ends_with_2_and_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_GATEWAY_PORT", "eighty")
    result = CliRunner().invoke(application, ["settings"])
    assert result.exit_code == 2
    assert "HEADRACE_GATEWAY_PORT" in result.output


def test_the_command_writes_and_checks(tmp_path: Path) -> None:
    run = CliRunner().invoke
    page = tmp_path / "docs" / "configuration.md"
    assert run(application, ["settings", "--check", str(page)]).exit_code == 1
    assert run(application, ["settings", "--write", str(page)]).exit_code == 0
    assert run(application, ["settings", "--check", str(page)]).exit_code == 0
    page.write_text(page.read_text() + "by hand\n")
    result = run(application, ["settings", "--check", str(page)])
    assert result.exit_code == 1
    assert "headrace settings --write" in result.output
