"""What the command does before it does anything: its version, its warnings, and how little it imports."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import headrace
from headrace.cli.main import application


def test_the_version_is_an_option_and_a_command() -> None:
    for way in ("--version", "version"):
        result = CliRunner().invoke(application, [way])
        assert (result.exit_code, result.stdout) == (0, f"{headrace.__version__}\n")


def test_a_misspelt_variable_is_told_once_and_beside_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_ENGINE_CONCURENCY", "5")
    result = CliRunner().invoke(application, ["version"])
    assert result.stdout == f"{headrace.__version__}\n"
    told = "Warning: HEADRACE_ENGINE_CONCURENCY is set, and is no setting: did you mean HEADRACE_ENGINE_CONCURRENCY?"
    assert result.stderr.count(told) == 1


def test_a_wrong_setting_is_told_in_one_line_by_who_needs_it_and_keeps_no_help_from_anyone() -> None:
    environment = {**os.environ, "HEADRACE_GATEWAY_PORT": "many"}

    def ran(*command: str) -> subprocess.CompletedProcess[str]:
        whole = [sys.executable, "-m", "headrace", *command]
        return subprocess.run(whole, capture_output=True, text=True, env=environment, timeout=60, check=False)

    for command in ("--help", "--version", "version"):
        done = ran(command)
        assert (done.returncode, done.stderr) == (0, ""), command
    for command in ("jobs", "settings", "simulate", "dev"):
        done = ran(command)
        assert (done.returncode, done.stdout) == (2, ""), command
        assert done.stderr.startswith("Error: Settings are wrong: HEADRACE_GATEWAY_PORT = 'many': "), command
        assert len(done.stderr.splitlines()) == 1, command


@pytest.mark.parametrize(
    "command",
    [
        *[["jobs"], ["dead-letters", "list"], ["dead-letters", "redrive", "--all"], ["keys", "list"]],
        ["memory", "show", "--user", "ann", "--conversation", "c"],
    ],
    ids=" ".join,
)
def test_who_waits_for_a_broker_says_so(command: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes the connection, and never answers
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        environment = {"KAFKA_BOOTSTRAP_SERVERS": address, "HEADRACE_KAFKA_CONNECT_TIMEOUT_SECONDS": "2"}
        result = CliRunner().invoke(application, command, env=environment)
    told = result.stderr.splitlines()
    assert result.exit_code == 2
    assert told[0] == f"No answer from {address} yet: trying for 2 s ..."
    assert told[1].startswith("Error: ") and address in told[1]


INTERRUPTED_AT = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
from headrace_command import main
sys.argv = ["headrace", "simulate"]
main()
"""


@pytest.mark.parametrize("module", ["headrace", "pydantic", "headrace.testing.simulation.seeds"])
def test_ctrl_c_is_answered_in_one_line_also_while_headrace_is_imported(module: str) -> None:
    code = INTERRUPTED_AT.format(module=module)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


def test_options_before_a_command_that_are_not_its_own_are_not_passed_over() -> None:
    result = CliRunner().invoke(application, ["jobs", "--namespace", "other", "retry", "job-1"])
    assert (result.exit_code, "the options of 'retry' stand behind it" in result.output) == (2, True), result.output


@pytest.mark.parametrize("command", [["version"], ["jobs", "--help"], ["memory", "import", "--help"], ["settings"]], ids=" ".join)
def test_what_a_command_does_not_need_is_not_imported(command: list[str]) -> None:
    """A web framework and a validator of schemas would take longer to import than all the rest."""
    unneeded = {"fastapi", "uvicorn", "jsonschema", "headrace_gateway"}
    if command in (["version"], ["jobs", "--help"]):
        # Nor what speaks to a broker, or another command's code.
        unneeded |= {"headrace.settings", "aiokafka", "headrace.client", "headrace.cli.replay", "headrace.cli.bench"}
    code = (
        "import sys\nfrom headrace.cli.main import application\n"
        f"application({command!r}, standalone_mode=False)\n"
        f"print('imported', sorted({unneeded!r} & sys.modules.keys()))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "imported []"
