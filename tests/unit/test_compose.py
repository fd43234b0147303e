"""docker-compose.yml, the Dockerfile and .dockerignore, held to their rules without Docker."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from typer.testing import CliRunner

from headrace.api_keys import parse_key
from headrace.broker.container import IMAGES
from headrace.cli.main import application
from headrace.cli.settings import Setting, groups, settings_of
from headrace.settings import GatewaySettings, Settings, load_settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
PINNED = re.compile(r"[a-z0-9./-]+:v?\d+\.\d+\.\d+[a-z0-9.-]*")
SETTINGS: dict[str, Setting] = {setting.variable: setting for _, group in groups() for setting in settings_of(group)}
SECRET_FILES = {f"{variable}_FILE" for variable, setting in SETTINGS.items() if setting.secret}


class Instruction(NamedTuple):
    """One instruction of a Dockerfile."""

    name: str
    text: str

    def words(self) -> list[str]:
        """The arguments without flags, whether written as a list or as a line."""
        if self.text.startswith("["):
            return [str(word) for word in json.loads(self.text)]
        return [word for word in shlex.split(self.text) if not word.startswith("--")]

    def flag(self, name: str) -> str | None:
        found = re.search(rf"--{name}=(\S+)", self.text)
        return found[1] if found else None


def stages_of(text: str) -> dict[str, list[Instruction]]:
    """The instructions of each stage by its name, the `FROM` first."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    stages: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in filter(None, map(str.strip, joined.splitlines())):
        name, _, rest = line.partition(" ")
        assert name in {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "HEALTHCHECK", "ENTRYPOINT", "EXPOSE"}, line
        instruction = Instruction(name, rest.strip())
        if name == "FROM":
            words = instruction.words()
            assert len(words) == 3 and words[1].upper() == "AS", line
            current = stages.setdefault(words[2], [])
        current.append(instruction)
    return stages


STAGES = stages_of((ROOT / "Dockerfile").read_text())


def chain(target: str) -> list[Instruction]:
    """All instructions that make a target, those of the stages that it stands on first."""
    base = STAGES[target][0].words()[0]
    return [*(chain(base) if base in STAGES else []), *STAGES[target]]


def environment_of(target: str) -> dict[str, str]:
    """What a target's `ENV` instructions set."""
    pairs = [word for instruction in chain(target) if instruction.name == "ENV" for word in instruction.words()]
    return dict(pair.split("=", 1) for pair in pairs)


def last(target: str, name: str) -> Instruction:
    return [instruction for instruction in chain(target) if instruction.name == name][-1]


def is_ignored(path: str, rules: list[str]) -> bool:
    """Whether .dockerignore keeps a path from the builder: the last rule that fits it, or a folder above it, decides."""
    ignored = False
    for rule in rules:
        pattern = rule.removeprefix("!").rstrip("/")
        parts = Path(path).parts
        above = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        names = above + (list(parts) if pattern.startswith("**/") else [])
        if any(fnmatch(name, pattern.removeprefix("**/")) for name in names):
            ignored = not rule.startswith("!")
    return ignored


IGNORE_RULES = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line.strip() and not line.startswith("#")]


def test_the_compose_file_fits_the_compose_specification() -> None:
    checker = Path(sys.executable).with_name("check-jsonschema")
    command = [str(checker), "--builtin-schema", "vendor.compose-spec", str(ROOT / "docker-compose.yml")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_redpanda_engine_and_gateway_are_there() -> None:
    assert set(SERVICES) == {"redpanda", "engine", "keys", "gateway"}


def test_images_are_pinned_and_the_broker_is_the_one_that_tests_use() -> None:
    assert SERVICES["redpanda"]["image"] == IMAGES["redpanda"]
    assert PINNED.fullmatch(SERVICES["redpanda"]["image"])
    from_images = {stage[0].words()[0] for stage in STAGES.values()} - set(STAGES)
    assert len(from_images) == 1
    assert all(PINNED.fullmatch(image) and "slim" in image for image in from_images)


def test_python_is_one_that_the_project_takes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    minimum = tuple(map(int, project["requires-python"].removeprefix(">=").split(".")))
    version = re.search(r"python:(\d+)\.(\d+)", STAGES["build"][0].text)
    assert version is not None
    assert (int(version[1]), int(version[2])) >= minimum


@pytest.mark.parametrize("service", ["engine", "keys", "gateway"])
def test_each_service_is_built_from_a_target_that_exists(service: str) -> None:
    build = SERVICES[service]["build"]
    assert (ROOT / build["context"] / build.get("dockerfile", "Dockerfile")).is_file()
    assert build["target"] in STAGES


def test_everything_that_is_copied_exists_and_reaches_the_builder() -> None:
    copied = 0
    for stage in STAGES.values():
        for instruction in stage:
            if instruction.name != "COPY":
                continue
            *sources, _ = instruction.words()
            if (origin := instruction.flag("from")) is not None:
                assert origin in STAGES
                continue
            for source in sources:
                assert (ROOT / source).exists(), source
                assert not is_ignored(source, IGNORE_RULES), source
                copied += 1
    assert copied >= 5


def test_the_builder_gets_the_packages_and_nothing_private() -> None:
    assert not is_ignored("services/engine/headrace/cli/main.py", IGNORE_RULES)
    for path in (
        ".env",
        ".git/config",
        ".venv/bin/python",
        ".headrace/broker.json",
        "tests/conftest.py",
        "a/b/__pycache__/x.pyc",
    ):
        assert is_ignored(path, IGNORE_RULES), path
    assert is_ignored("services/engine/headrace/__pycache__/x.pyc", IGNORE_RULES)


def test_what_the_wheel_is_built_from_reaches_the_builder() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = [
        "pyproject.toml",
        project["project"]["readme"],
        *project["project"]["license-files"],
        *project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"],
    ]
    copied = [word for step in STAGES["build"] if step.name == "COPY" for word in step.words()[:-1]]
    for path in needed:
        assert any(path == source or path.startswith(f"{source}/") for source in copied), path


def test_packages_are_installed_by_the_lock_file_with_hashes_alone() -> None:
    runs = [instruction.text for instruction in STAGES["build"] if instruction.name == "RUN"]
    steps = [step for run in runs for step in run.split("&&") if " pip " in step]
    fetching = [step for step in steps if "--no-index" not in step]
    assert len(fetching) == 1
    assert {"--require-hashes", "--only-binary", "requirements.lock"} <= set(shlex.split(fetching[0]))


@pytest.mark.parametrize("target", ["engine", "gateway"])
def test_the_entry_point_is_a_command_that_the_wheel_installs(target: str) -> None:
    program, command = last(target, "ENTRYPOINT").words()
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert program in scripts
    assert CliRunner().invoke(application, [command, "--help"]).exit_code == 0
    assert environment_of(target)["PATH"].startswith("/opt/headrace/bin:")


@pytest.mark.parametrize("target", ["engine", "gateway"])
def test_it_does_not_run_as_root_and_owns_its_data(target: str) -> None:
    user = last(target, "USER").text
    assert user.isdigit() and int(user) > 0
    home = environment_of(target)["HEADRACE_DATA_DIRECTORY"]
    [adding] = [step.text for step in STAGES["base"] if step.name == "RUN"]
    assert f"--uid {user} --home-dir {home} --create-home" in adding


@pytest.mark.parametrize("service", ["engine", "gateway"])
def test_every_variable_is_a_setting_with_a_value_that_loads(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [*SETTINGS, *SECRET_FILES]:
        monkeypatch.delenv(variable, raising=False)
    given = environment_of(SERVICES[service]["build"]["target"]) | SERVICES[service]["environment"]
    ours = {name: value for name, value in given.items() if name not in {"PATH", "PYTHONUNBUFFERED"}}
    assert "KAFKA_BOOTSTRAP_SERVERS" in ours
    for variable, value in ours.items():
        assert variable in SETTINGS, variable
        assert isinstance(value, str), f"{variable}: quote it, YAML makes it {value!r}"
        monkeypatch.setenv(variable, value)
    loaded = load_settings()
    for name, group in groups():
        holder = getattr(loaded, name) if name else loaded
        for setting in settings_of(group):
            assert (setting.name in holder.model_fields_set) == (setting.variable in ours), setting.variable


def test_the_gateways_ports_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    port = environment_of("gateway")["HEADRACE_GATEWAY_PORT"]
    assert last("gateway", "EXPOSE").text == port == str(GatewaySettings.model_fields["port"].default)
    assert f"http://127.0.0.1:{port}/healthz" in last("gateway", "HEALTHCHECK").text
    assert SERVICES["gateway"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    monkeypatch.setenv("HEADRACE_GATEWAY_HOST", environment_of("gateway")["HEADRACE_GATEWAY_HOST"])
    assert Settings().gateway.host == "0.0.0.0"


def test_nothing_is_published_beyond_this_machine() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(str(port).startswith("127.0.0.1:") for port in published)


def test_the_brokers_addresses_agree() -> None:
    [listening] = [word for word in SERVICES["redpanda"]["command"] if word.startswith("--kafka-addr=")]
    [advertised] = [word for word in SERVICES["redpanda"]["command"] if word.startswith("--advertise-kafka-addr=")]
    inside, outside = re.findall(r"(?:internal|external)://[\d.]+:(\d+)", listening)
    assert re.findall(r"internal://(\S+?),", advertised) == [f"redpanda:{inside}"]
    assert re.findall(r"external://(\S+)", advertised) == [f"127.0.0.1:{outside}"]
    assert SERVICES["redpanda"]["ports"] == [f"127.0.0.1:{outside}:{outside}"]
    for service in ("engine", "keys", "gateway"):
        assert SERVICES[service]["environment"]["KAFKA_BOOTSTRAP_SERVERS"] == f"redpanda:{inside}"
        assert SERVICES[service]["depends_on"]["redpanda"] == {"condition": "service_healthy"}
    assert "healthcheck" in SERVICES["redpanda"]


def test_volumes_are_declared_and_used() -> None:
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert used == set(COMPOSE["volumes"])
    gateway = {volume.split(":")[1] for volume in SERVICES["gateway"]["volumes"]}
    assert gateway == {environment_of("gateway")["HEADRACE_DATA_DIRECTORY"]}


def test_containers_get_longer_to_end_than_they_need() -> None:
    def seconds(service: str) -> float:
        return float(SERVICES[service]["stop_grace_period"].removesuffix("s"))

    assert seconds("engine") > float(SERVICES["engine"]["environment"]["HEADRACE_ENGINE_GRACE_SECONDS"]) + 10
    assert seconds("gateway") > float(SERVICES["gateway"]["environment"]["HEADRACE_GATEWAY_ENQUEUE_TIMEOUT_SECONDS"]) + 5


def test_the_gateway_asks_who_calls_and_its_key_is_entered_before_it_starts() -> None:
    assert environment_of("gateway")["HEADRACE_GATEWAY_AUTHENTICATION"] == "required"
    assert SERVICES["gateway"]["depends_on"]["keys"] == {"condition": "service_completed_successfully"}
    keys = SERVICES["keys"]
    assert keys["entrypoint"][:3] == ["headrace", "keys", "create"] and "--from-environment" in keys["entrypoint"]
    assert set(keys["environment"]) == {"KAFKA_BOOTSTRAP_SERVERS", "HEADRACE_API_KEY"}
    # Compose itself refuses to start without the key.
    assert keys["environment"]["HEADRACE_API_KEY"].startswith("${HEADRACE_API_KEY:?")
    given = [name for name, service in SERVICES.items() if "HEADRACE_API_KEY" in service.get("environment", {})]
    assert given == ["keys"], "the gateway itself needs no key"


def test_make_env_writes_a_key_once_for_its_owner_alone(tmp_path: Path) -> None:
    def make_env() -> str:
        command = ["make", "--silent", "--file", str(ROOT / "Makefile"), "env"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
        assert "hr_" not in done.stdout + done.stderr, "it is not shown"
        return (tmp_path / ".env").read_text()

    written = make_env()
    name, _, key = written.strip().partition("=")
    assert name == "HEADRACE_API_KEY"
    assert parse_key(key).text == key
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    assert make_env() == written
    (tmp_path / ".env").write_text("OTHER=1\n")
    assert parse_key(make_env().splitlines()[1].removeprefix("HEADRACE_API_KEY="))
    assert make_env().startswith("OTHER=1\n")
