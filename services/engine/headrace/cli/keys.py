"""`headrace keys`: who may come in to the gateway with an API key."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from headrace.api_keys import ApiKeys, ApiKeyText, parse_key
from headrace.cli.common import (
    AsJson,
    BootstrapServers,
    NamespaceOption,
    errors_shown,
    log_to_stderr,
    opened,
    plain,
    settings_from,
)
from headrace.cli.listing import Listing, Row
from headrace.errors import ApiKeyInvalid
from headrace.fields import LONGEST_IDENTITY, check_plain
from headrace.models import DEFAULT_TENANT, ApiKey
from headrace.settings import Settings

application = typer.Typer(help="API keys of the gateway: make them, list them, revoke them.", no_args_is_help=True)

_ACT_AS = "jobs:act-as"


@application.command()
def create(
    name: Annotated[str, typer.Argument(help="What you call the key.")],
    user: Annotated[str | None, typer.Option(help="The one user for whom it may act, and whose jobs it sees.")] = None,
    all_users: Annotated[bool, typer.Option("--all-users", help="It may act for every user of its tenant.")] = False,
    tenant: Annotated[str, typer.Option(help="Whose jobs it sees and makes.")] = DEFAULT_TENANT,
    scope: Annotated[
        list[str] | None, typer.Option(help="A right; may be repeated. [default: all, but that to act for others]")
    ] = None,
    expires_in_days: Annotated[
        float, typer.Option(min=0, max=36_500, help="Days for which it counts; 0 for as long as it is not revoked.")
    ] = 365.0,
    from_environment: Annotated[
        bool, typer.Option("--from-environment", help="Enter the key in HEADRACE_API_KEY, if it is not there yet.")
    ] = False,
    bootstrap_servers: BootstrapServers = None,
    namespace: NamespaceOption = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key. It is printed once, on standard output, and is kept nowhere: what is kept is a hash of it."""
    with errors_shown():
        fields = _fields(name, user, all_users, tenant, scope)
        settings = settings_from(bootstrap_servers, namespace)
        log_to_stderr(settings, default="WARNING")
        given = _given(settings) if from_environment else None
        expires_at = datetime.now(UTC) + timedelta(days=expires_in_days) if expires_in_days else None
        made, key = asyncio.run(_create(settings, {**fields, "expires_at": expires_at, "key": given}))
    shown = {**_shown(made), **({} if from_environment else {"key": key.text})}
    if as_json:
        Console().print_json(data=shown)
        return
    typer.echo(plain(f"The key {made.id} ({made.name}) {_allows(made)}.").plain, err=True)
    if not from_environment:
        typer.echo("Keep it now: it is not shown again.", err=True)
        typer.echo(key.text)


@application.command("list")
def list_(bootstrap_servers: BootstrapServers = None, namespace: NamespaceOption = None, as_json: AsJson = False) -> None:
    """List the API keys, newest first, those that do not count any more too. The keys themselves are not shown."""
    with errors_shown():
        settings = settings_from(bootstrap_servers, namespace)
        log_to_stderr(settings, default="WARNING")
        keys = asyncio.run(_list(settings))
    if as_json:
        Console().print_json(data=[_shown(key) for key in keys])
    else:
        _listing(keys).print()


@application.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `list` has it; the key itself does as well.")],
    bootstrap_servers: BootstrapServers = None,
    namespace: NamespaceOption = None,
    as_json: AsJson = False,
) -> None:
    """Have an API key count no more. Every gateway heeds that within two seconds, and closes what was opened with the key."""
    with errors_shown():
        settings = settings_from(bootstrap_servers, namespace)
        log_to_stderr(settings, default="WARNING")
        revoked = asyncio.run(_revoke(settings, _id_of(key_id)))
    if as_json:
        Console().print_json(data=_shown(revoked))
    else:
        typer.echo(plain(f"The key {revoked.id} ({revoked.name}) is revoked.").plain)


def _fields(name: str, user: str | None, all_users: bool, tenant: str, scope: list[str] | None) -> dict[str, Any]:
    """What is kept of a new key, besides its times."""
    from headrace_gateway import Scope

    if (user is None) != all_users:
        raise ApiKeyInvalid(
            "Say for whom the key may act: --user NAME for one user alone, or --all-users for a service that many users share."
        )
    for option, value in (("The name", name), ("--user", user), ("--tenant", tenant)):
        if value is not None and not 1 <= len(value) <= LONGEST_IDENTITY:
            raise ApiKeyInvalid(f"{option} has to have 1 to {LONGEST_IDENTITY} characters.")
        try:
            check_plain(value or "")
        except ValueError as error:
            raise ApiKeyInvalid(f"{option} is wrong: {error}.") from None
    known = {each.value for each in Scope}
    scopes = set(scope) if scope else known - {_ACT_AS}
    if unknown := sorted(scopes - known):
        raise ApiKeyInvalid(f"There is no scope {', '.join(map(repr, unknown))}. There are: {', '.join(sorted(known))}.")
    if user is not None and _ACT_AS in scopes:
        raise ApiKeyInvalid(f"A key for the user {user!r} alone cannot have the scope {_ACT_AS}: give --all-users instead.")
    if all_users:
        scopes.add(_ACT_AS)
    return {"name": name, "subject": name if user is None else user, "tenant": tenant, "scopes": sorted(scopes)}


def _given(settings: Settings) -> ApiKeyText:
    if settings.api_key is None:
        raise ApiKeyInvalid("HEADRACE_API_KEY is not set (nor HEADRACE_API_KEY_FILE): there is no key to be entered.")
    return parse_key(settings.api_key.get_secret_value())


def _id_of(text: str) -> str:
    """The id, also where somebody gives the whole key: it must not come back in an error."""
    return parse_key(text).id if text.startswith("hr_") else text


async def _create(settings: Settings, fields: dict[str, Any]) -> tuple[ApiKey, ApiKeyText]:
    async with opened(ApiKeys(settings), settings) as keys:
        return await keys.create(**fields)


async def _list(settings: Settings) -> list[ApiKey]:
    async with opened(ApiKeys(settings), settings) as keys:
        return sorted(keys.keys.values(), key=lambda key: (key.created_at, key.id), reverse=True)


async def _revoke(settings: Settings, key_id: str) -> ApiKey:
    async with opened(ApiKeys(settings), settings) as keys:
        return await keys.revoke(key_id)


def _shown(key: ApiKey) -> dict[str, Any]:
    """A key as it is printed. Its digest is of no use to anybody."""
    return {name: value for name, value in key.to_wire().items() if name not in ("digest", "schemaVersion")}


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return f"revoked {key.revoked_at:%Y-%m-%d}"
    if key.expires_at is None:
        return "counts"
    return f"{'expired' if key.expires_at <= datetime.now(UTC) else 'until'} {key.expires_at:%Y-%m-%d}"


def _allows(key: ApiKey) -> str:
    whom = f"every user of the tenant {key.tenant}" if _ACT_AS in key.scopes else f"{key.subject} in the tenant {key.tenant}"
    return f"acts for {whom}; its scopes: {', '.join(key.scopes)}"


def _listing(keys: list[ApiKey]) -> Listing:
    rows = [
        Row((key.id, _state(key), key.tenant, key.subject, key.name), [Text(f"scopes: {' '.join(key.scopes)}")]) for key in keys
    ]
    return Listing("API keys, newest first", ("id", "state", "tenant", "subject", "name"), "No API keys.", rows)
