"""`headrace replay`: its commands, each in a module of its own."""

from __future__ import annotations

from typing import ClassVar

import typer

from headrace.cli.on_demand import GroupOnDemand


class _Commands(GroupOnDemand):
    places: ClassVar = {
        "job": "headrace.cli.replay:job",
        "stream": "headrace.cli.replay_stream:stream",
        "clean": "headrace.cli.replay_clean:clean",
    }


application = typer.Typer(
    cls=_Commands, no_args_is_help=True, help="Run recorded jobs again, through today's code: nothing they do is done."
)
