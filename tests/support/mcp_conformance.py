"""The protocol's official conformance suite: runs it, and says what differs from what is expected of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from support.mcp_clients import FOLDER, node_client, run

SUITE = "node_modules/@modelcontextprotocol/conformance/dist/index.js"
EXPECTED = FOLDER / "expected_failures.yaml"
FINE = frozenset({"SUCCESS", "INFO"})


@dataclass(frozen=True)
class Check:
    """What became of a check, and what the suite says to that."""

    status: str
    message: str = ""

    @property
    def fine(self) -> bool:
        return self.status in FINE


Checks = dict[str, dict[str, Check]]
"""What became of each check, by scenario and by the check's id."""


async def run_required(url: str, revision: str, folder: Path) -> Checks:
    """Runs all that a revision of the protocol requires, and what the suite has besides for it, extensions among that."""
    await _suite(["--url", url, "--requirements", revision, "--output-dir", str(folder)])
    return read_results(folder)


async def run_scenarios(url: str, revision: str, scenarios: Iterable[str], folder: Path) -> Checks:
    """Runs some scenarios, those of extensions too, which are skipped unless that is forced."""
    for scenario in scenarios:
        chosen = ["--scenario", scenario, "--spec-version", revision, "--force"]
        await _suite(["--url", url, *chosen, "--output-dir", str(folder)])
    return read_results(folder)


def read_results(folder: Path) -> Checks:
    """What the suite has written to its folder."""
    results: Checks = {}
    for path in sorted(folder.glob("server-*/checks.json")):
        scenario = _without_date(path.parent.name.removeprefix("server-"))
        checks: list[dict[str, Any]] = json.loads(path.read_text())
        # Of checks with one id that which fails counts.
        ordered = sorted(checks, key=lambda each: each["status"] not in FINE)
        results[scenario] = {each["id"]: Check(each["status"], each.get("errorMessage") or "") for each in ordered}
    return results


def expected_of(revision: str) -> Mapping[str, Mapping[str, str]]:
    """For each scenario the checks that do not succeed, each with the reason."""
    stated: dict[str, dict[str, dict[str, str]]] = yaml.safe_load(EXPECTED.read_text())
    return stated[revision]


def differences(results: Checks, expected: Mapping[str, Mapping[str, str]], *, complete: bool) -> list[str]:
    """What is not as expected: a check that does not succeed without a reason being known, and a reason that nothing needs.

    Args:
        complete: whether every scenario was run for which something is expected.
    """
    found: list[str] = []
    for scenario, checks in results.items():
        reasons = expected.get(scenario, {})
        if not checks:
            found.append(f"{scenario}: nothing was checked")
        found += [
            f"{scenario}: {each} is {check.status}: {check.message}"
            for each, check in checks.items()
            if not check.fine and each not in reasons
        ]
        found += [f"{scenario}: {each} succeeds" for each in reasons if each not in checks or checks[each].fine]
    if complete:
        found += [f"{scenario}: was not run" for scenario in expected if scenario not in results]
    return found


def _without_date(name: str) -> str:
    """The name without the time that ends it: -2026-11-22T23-30-17-506Z."""
    return name[: -len("-2026-11-22T23-30-17-506Z")]


async def _suite(options: list[str]) -> None:
    # Some scenario fails, of which the suite makes its own failure.
    await run([*node_client(SUITE), "server", *options], seconds=600, fails=True)
