"""`headrace memory`: put a conversation into memory, and look at it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, get_args

import orjson
import typer
from rich.table import Table
from rich.text import Text

from headrace.cli.common import BootstrapServers, NamespaceOption, errors_shown, log_to_stderr, opened, plain, settings_from
from headrace.cli.listing import output_console
from headrace.errors import ConversationInvalid
from headrace.memory import Memory, ParsedConversation, load_conversation, parse_conversation
from headrace.memory.summarise.tokens import estimate_tokens
from headrace.models import MemoryEntry, MemoryRole
from headrace.ports import MemorySnapshot, NewEntry

ResultT = TypeVar("ResultT")

application = typer.Typer(help="The memory of conversations: put one in, and look at it.", no_args_is_help=True)

_ROLES = tuple(role for role in get_args(MemoryRole) if role != "summary")

UserOption = Annotated[str, typer.Option("--user", help="Whose conversation it is.")]
ConversationOption = Annotated[str, typer.Option("--conversation", help="Which conversation.")]


@application.command("import")
def import_(
    file: Annotated[str, typer.Argument(help="JSON with `turns` or `messages`, a list, or JSON lines; -: standard input.")],
    user: Annotated[str | None, typer.Option(help="Whose conversation it is.", show_default="what the file says")] = None,
    conversation: Annotated[str | None, typer.Option(help="What it is called.", show_default="what the file says")] = None,
    bootstrap_servers: BootstrapServers = None,
    namespace: NamespaceOption = None,
) -> None:
    """Put a conversation into memory. Turns that are there already are not added again."""
    with errors_shown():
        parsed = _load(file, user, conversation)
        appended = _with_memory(bootstrap_servers, namespace, lambda memory: memory.import_conversation(parsed))
        known = len(appended.ids) - appended.added
        told = f"{_entries(appended.added)} added to conversation {parsed.conversation_id} of {parsed.user_id}"
        typer.echo(plain(f"{told}; {known} were there already." if known else f"{told}.").plain)


@application.command()
def show(
    user: UserOption,
    conversation: ConversationOption,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Show what summaries replaced, too.")] = False,
    bootstrap_servers: BootstrapServers = None,
    namespace: NamespaceOption = None,
) -> None:
    """Show what a conversation's memory is now: its summaries and entries, in reading order."""

    async def look(memory: Memory) -> tuple[MemorySnapshot, list[tuple[MemoryEntry, str | None]]]:
        snapshot = await memory.read(user, conversation)
        if everything:
            return snapshot, await memory.history(user, conversation)
        return snapshot, [(entry, None) for entry in snapshot.entries]

    with errors_shown():
        snapshot, entries = _with_memory(bootstrap_servers, namespace, look)
    if as_json:
        typer.echo(orjson.dumps(_as_object(user, conversation, snapshot, entries), option=orjson.OPT_INDENT_2).decode())
    else:
        _print_table(user, conversation, snapshot, entries)


@application.command()
def append(
    user: UserOption,
    conversation: ConversationOption,
    role: Annotated[str, typer.Option(help=f"Who said it: {', '.join(_ROLES)}.")],
    content: Annotated[str, typer.Option(help="What was said; - for standard input.")],
    name: Annotated[str | None, typer.Option(help="The speaker's name.")] = None,
    entry_id: Annotated[str | None, typer.Option("--id", help="Names the entry: the same id is added once.")] = None,
    bootstrap_servers: BootstrapServers = None,
    namespace: NamespaceOption = None,
) -> None:
    """Add one entry to a conversation."""
    with errors_shown():
        if role not in _ROLES:
            raise ConversationInvalid(f"--role {role!r} is none of {', '.join(_ROLES)}.")
        text = _standard_input().decode(errors="replace") if content == "-" else content
        if not text.strip():
            raise ConversationInvalid("--content is empty.")
        entry = NewEntry(role=cast("MemoryRole", role), content=text, name=name, id=entry_id)
        appended = _with_memory(bootstrap_servers, namespace, lambda memory: memory.append(user, conversation, [entry]))
        typer.echo(f"{'Added' if appended.added else 'Already there:'} {appended.ids[0]}")


def _load(file: str, user: str | None, conversation: str | None) -> ParsedConversation:
    if file == "-":
        return parse_conversation(_standard_input(), user_id=user, conversation_id=conversation)
    return load_conversation(Path(file), user_id=user, conversation_id=conversation)


def _standard_input() -> bytes:
    return sys.stdin.buffer.read()


def _with_memory(bootstrap_servers: str | None, namespace: str | None, work: Callable[[Memory], Awaitable[ResultT]]) -> ResultT:
    settings = settings_from(bootstrap_servers, namespace)
    log_to_stderr(settings, default="WARNING")

    async def run() -> ResultT:
        async with opened(Memory(settings), settings) as memory:
            return await work(memory)

    return asyncio.run(run())


def _as_object(
    user: str, conversation: str, snapshot: MemorySnapshot, entries: Sequence[tuple[MemoryEntry, str | None]]
) -> dict[str, Any]:
    """What `--json` prints. A superseded entry has `supersededBy`."""
    return {
        "userId": user,
        "conversationId": conversation,
        "version": snapshot.version,
        "tokens": snapshot.tokens,
        "compactions": len(snapshot.compactions),
        "entries": [
            {
                "id": entry.id,
                "role": entry.role,
                "name": entry.name,
                "at": entry.at.isoformat(),
                "tokens": estimate_tokens(entry.content),
                "content": entry.content,
                **({"supersededBy": by} if by else {}),
            }
            for entry, by in entries
        ],
    }


def _print_table(
    user: str, conversation: str, snapshot: MemorySnapshot, entries: Sequence[tuple[MemoryEntry, str | None]]
) -> None:
    console = output_console()
    if not entries:
        console.print(plain(f"Nothing is known of conversation {conversation} of {user}."))
        return
    table = Table(show_lines=False, header_style="bold")
    table.add_column("at", no_wrap=True)
    table.add_column("who", no_wrap=True)
    table.add_column("tokens", justify="right")
    table.add_column("content", overflow="fold")
    for entry, by in entries:
        style = "dim" if by else "bold" if entry.role == "summary" else ""
        who = f"{entry.role}: {entry.name}" if entry.name and entry.role == "summary" else entry.name or entry.role
        table.add_row(
            f"{entry.at:%Y-%m-%d %H:%M}", plain(who), str(estimate_tokens(entry.content)), plain(entry.content), style=style
        )
    console.print(table)
    console.print(
        Text(
            f"{_entries(len(snapshot.entries))}, {len(snapshot.summaries)} of them summaries, about {snapshot.tokens} tokens; "
            f"compacted {len(snapshot.compactions)} times."
        )
    )


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"
