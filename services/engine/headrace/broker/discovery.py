"""Which broker belongs to this folder: a note beside its data, written while it runs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from headrace.broker.readiness import describe_cluster
from headrace.errors import BrokerNotConfigured, ConfigurationError
from headrace.settings import Settings, load_settings

NOTE_NAME = "broker.json"
ANSWER_SECONDS = 2.0
UNKEPT_NAME = "unkept"
"""Holds what is derived from the logs of brokers that keep none, for each cluster by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerNote:
    """What `.headrace/broker.json` says.

    Attributes:
        kind: `local` or `docker`.
        bootstrap_servers: its address.
        cluster_id: what its cluster calls itself; another broker at the same address has another.
        pid: the process that started it, and with which it ends.
        data_directory: where its data lie; None where they go with it.
        control: host:port at which the process that started it takes what is asked of its nodes (`control.py`).
        control_token: what must be shown there.
    """

    kind: str
    bootstrap_servers: str
    cluster_id: str
    pid: int
    data_directory: str | None = None
    control: str | None = None
    control_token: str | None = field(default=None, repr=False)


def note_path(settings: Settings) -> Path:
    """Where the note of this folder's broker lies."""
    return settings.data_directory / NOTE_NAME


def publish(settings: Settings, note: BrokerNote) -> None:
    """Make the broker known to whoever runs in this folder.

    Raises:
        ConfigurationError: the note cannot be written.
    """
    path = note_path(settings)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Left by one that was killed: its log will never be seen again.
        shutil.rmtree(settings.data_directory / UNKEPT_NAME, ignore_errors=True)
        descriptor, draft = tempfile.mkstemp(prefix=".broker-", dir=path.parent, text=True)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(note), file, indent=2)
        Path(draft).replace(path)
    except OSError as error:
        raise ConfigurationError(
            f"{path}, by which other commands find the broker, cannot be written ({error.strerror}); "
            "set HEADRACE_DATA_DIRECTORY to a folder that can."
        ) from error


def retract(settings: Settings, note: BrokerNote) -> None:
    """Take the note away again, if it is still this one."""
    if read_note(settings) == note:
        # One that stays is not believed: its broker does not answer.
        with contextlib.suppress(OSError):
            note_path(settings).unlink()
        shutil.rmtree(settings.data_directory / UNKEPT_NAME, ignore_errors=True)


def read_note(settings: Settings) -> BrokerNote | None:
    """The note as it stands, whether its broker lives or not; None when there is none that can be read."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return BrokerNote(**json.loads(note_path(settings).read_text()))
    return None


def running_broker(settings: Settings) -> BrokerNote | None:
    """The broker that runs for this folder; one that does not answer, or is another's by now, does not count."""
    note = read_note(settings)
    if note is None:
        return None
    description = describe_cluster(note.bootstrap_servers, timeout_seconds=ANSWER_SECONDS)
    return note if description is not None and description.cluster_id == note.cluster_id else None


def resolve_bootstrap_servers(settings: Settings) -> str:
    """The address to use: the one in the settings (--bootstrap-servers, then KAFKA_BOOTSTRAP_SERVERS), else this folder's.

    Never starts a broker. Blocks for an answer of the folder's broker, 2 s at most.

    Raises:
        BrokerNotConfigured: there is neither; the message says what to do.
    """
    if settings.bootstrap_servers:
        return settings.bootstrap_servers
    note = running_broker(settings)
    if note is not None:
        return note.bootstrap_servers
    why = f"no broker runs for this folder ({note_path(settings).absolute()} would name it)"
    if read_note(settings) is not None:
        why = f"the one that {note_path(settings)} names does not answer"
    raise BrokerNotConfigured(
        f"No broker is named, and {why}. Name one with --bootstrap-servers or KAFKA_BOOTSTRAP_SERVERS, or start one here "
        "with `headrace broker` (or the whole system with `headrace dev`) and leave it running."
    )


def with_broker_of_this_folder(settings: Settings) -> Settings:
    """The settings with the address that `resolve_bootstrap_servers` finds; raises as it does.

    Where it is that of a broker of this folder whose data go with it, what is kept of its log goes with it, too: views of
    another broker's log would be made anew at every change between the two.
    """
    found: dict[str, Any] = {"bootstrap_servers": resolve_bootstrap_servers(settings)}
    note = None if settings.bootstrap_servers else read_note(settings)
    if note is not None and note.data_directory is None and note.bootstrap_servers == found["bootstrap_servers"]:
        found["data_directory"] = settings.data_directory / UNKEPT_NAME / note.cluster_id
    return settings.model_copy(update=found)


def given_settings(settings: Settings | None) -> Settings | None:
    """What somebody gave as settings, or None. Raises TypeError when it is something else, as an address would be."""
    if settings is None or isinstance(settings, Settings):
        return settings
    raise TypeError(
        f"settings are headrace.Settings, not {type(settings).__name__}: "
        "write load_settings(bootstrap_servers='localhost:9092'), or set KAFKA_BOOTSTRAP_SERVERS and leave them out."
    )


def settings_of_this_folder() -> Settings:
    """The settings of the environment, with the broker that they name, else the one that runs for this folder.

    Never starts a broker. Blocks for an answer of the folder's broker, 2 s at most.

    Raises:
        ConfigurationError: a setting is wrong, or there is no broker; the message says what to do.
    """
    return with_broker_of_this_folder(load_settings())
