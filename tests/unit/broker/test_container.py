"""A broker in a container, as far as it goes without a Docker engine; with one, see tests/docker/."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROVIDE = """
import sys
from headrace.broker import BrokerRequest, provide_broker
from headrace.errors import LocalBrokerError
from headrace.settings import load_settings
for name in sys.argv[1:]:
    sys.modules[name] = None
try:
    provide_broker(load_settings(), BrokerRequest(kind="docker"))
except LocalBrokerError as error:
    sys.stdout.write(str(error))
"""


def provide(folder: Path, *missing: str) -> str:
    """What a request for a container comes to, with some modules missing and no Docker engine to be found."""
    environment = os.environ | {"DOCKER_HOST": f"unix://{folder}/no-docker.sock", "HOME": str(folder)}
    result = subprocess.run(
        [sys.executable, "-c", PROVIDE, *missing],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=folder,
        env=environment,
    )
    return result.stdout


def test_without_the_extra_the_error_says_what_to_install(tmp_path: Path) -> None:
    assert "pip install 'headrace[docker]'" in provide(tmp_path, "testcontainers")


def test_without_docker_the_error_says_what_to_do(tmp_path: Path) -> None:
    assert "Start Docker, or leave out `--with docker`" in provide(tmp_path)


def test_nobody_imports_testcontainers_without_asking_for_a_container() -> None:
    program = "import sys, headrace, headrace.broker, headrace.cli.broker; assert 'testcontainers' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "collected"),
    [([], False), (["tests/docker"], True)],
)
def test_the_tests_that_need_docker_are_collected_only_where_they_are_named(arguments: list[str], collected: bool) -> None:
    project = Path(__file__).parents[3]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=project,
    )
    assert ("tests/docker/test_container_broker.py" in result.stdout) is collected
    assert ("tests/unit/broker/test_container.py" in result.stdout) is not collected
