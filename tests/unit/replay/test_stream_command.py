"""What `headrace replay stream` says of options that make no sense, before it talks to any broker."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from headrace.cli.main import application

STREAM = ["stream", "support.replay_workers", "--from", "1h"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stream", "support.replay_workers"], "Say from when on jobs are to be replayed"),
        (["stream", "support.replay_workers", "--from", "yesterday"], "--from 'yesterday' is no time"),
        ([*STREAM, "--to", "2h"], "the span is empty"),
        ([*STREAM, "--speed", "fast"], "--speed 'fast' is none"),
        ([*STREAM, "--speed", "0"], "--speed '0' is none"),
        ([*STREAM, "--fail-on", "failing"], "There is no category 'failing'"),
        ([*STREAM, "--keep"], "--keep keeps a sandbox"),
        ([*STREAM, "--sandbox", "--order", "log"], "leave out --order log"),
        ([*STREAM, "--where", "failed"], "is no field with its value"),
        ([*STREAM, "--where", "args.title=a,b"], "no value can have a comma"),
        (["stream", "support.nothing_of_that_name", "--from", "1h"], "'support.nothing_of_that_name' cannot be imported"),
        (["stream", "support.replay_workers", "--file", "there-is-none.jsonl.gz"], "there-is-none.jsonl.gz"),
    ],
)
def test_it_says_what_is_wrong(words: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    result = CliRunner().invoke(application, ["replay", *words])
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
