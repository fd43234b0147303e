"""What the routes beside the tools take and answer."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, StringConstraints, WithJsonSchema

from headrace import ClosedModel, ListedStatus, MemoryEntry, MemorySnapshot, NewEntry, PlainIdentity, WireModel

LARGEST_PAGE = 100
LARGEST_ENTRIES_PAGE = 1_000
MOST_ENTRIES = 1_000
LONGEST_NAME = 200
LONGEST_WAIT_SECONDS = 30


def _digits(value: Any) -> Any:
    """A number as a query has it: pydantic would take `1_000`, ` 1` and `1.0` too, and no description of it says so."""
    if isinstance(value, str) and not (value.isascii() and value.isdigit()):
        raise ValueError("it is no whole number")
    return value


def _moment(text: str) -> str:
    """Checks a time with its date and zone, of a year in which headrace can write it."""
    try:
        _utc(text)
    except (ValueError, OverflowError):
        raise ValueError("it is no time as in RFC 3339, with its zone, such as 2026-01-31T09:15:00.123Z") from None
    return text


def _utc(text: str) -> datetime:
    moment = datetime.fromisoformat(text.upper()).astimezone(UTC) if _MOMENT.fullmatch(text) else None
    if moment is None or not 1000 <= moment.year < 3000:
        raise ValueError(text)
    return moment


_MOMENT = re.compile(r"[12]\d{3}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
# As text: pydantic's own type would take a text of digits too, of which nobody can say what they count.
_Moment = Annotated[str, AfterValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time", "pattern": "^[12]"})]
_Number = Annotated[int, BeforeValidator(_digits)]


class NoQuery(ClosedModel):
    """Nothing."""


class ChangesQuery(ClosedModel):
    """Which jobs: those that have all that is given."""

    status: ListedStatus | None = Field(None, description="The status that they have now.")
    worker_name: PlainIdentity | None = Field(None, description="Who does them.")
    user_id: PlainIdentity | None = Field(None, description="For whom they are done.")
    conversation_id: PlainIdentity | None = Field(None, description="The conversation that they came from.")


class JobsQuery(ChangesQuery):
    """Which jobs, and which page of them."""

    limit: _Number = Field(20, ge=1, le=LARGEST_PAGE, description="The most that a page has.")
    cursor: Annotated[str, StringConstraints(min_length=1, max_length=400)] | None = Field(
        None, description="`nextCursor` of the page before."
    )


class CancelQuery(ClosedModel):
    """How a job is cancelled."""

    wait: _Number = Field(0, ge=0, le=LONGEST_WAIT_SECONDS, description="Seconds to wait for its end.")


class WhoseQuery(ClosedModel):
    """Whose conversation."""

    user_id: PlainIdentity | None = Field(
        None, description="Whose conversation it is; a caller who may act for one user alone need not name that one."
    )


class EntriesQuery(WhoseQuery):
    """Whose conversation, and which page of it."""

    limit: _Number = Field(LARGEST_ENTRIES_PAGE, ge=1, le=LARGEST_ENTRIES_PAGE, description="The most that a page has.")
    cursor: PlainIdentity | None = Field(None, description="`nextCursor` of the page before.")


class EntryToAppend(ClosedModel):
    """Something that was said."""

    role: Literal["user", "assistant", "system", "tool"]
    content: str = Field(description="At most 512 KB of UTF-8.")
    name: str | None = Field(None, description="Who said it, where the role does not tell.")
    id: PlainIdentity | None = Field(
        None, description="Names it within its conversation: sent again, it is not added again. Made up when left out."
    )
    at: _Moment | None = Field(None, description="When it was said; now when left out. It does not change the order.")

    def entry(self) -> NewEntry:
        """As the memory takes it."""
        at = None if self.at is None else _utc(self.at)
        return NewEntry(role=self.role, content=self.content, name=self.name, id=self.id, at=at)


class EntriesToAppend(ClosedModel):
    """What is to be added to a conversation, in this order."""

    entries: list[EntryToAppend] = Field(min_length=1, max_length=MOST_ENTRIES)


class EntriesAppended(WireModel):
    """What was added."""

    ids: list[str] = Field(description="Of the entries, in the order given.")
    added: int = Field(description="How many of them were not there before.")


class EntryShown(WireModel):
    """Something that was said, or a summary of it."""

    id: str
    role: Literal["user", "assistant", "system", "tool", "summary"]
    content: str
    name: str | None = Field(None, description="Who said it; of a summary, its title.")
    at: datetime

    @classmethod
    def of(cls, entry: MemoryEntry) -> EntryShown:
        """As callers see it."""
        return cls(id=entry.id, role=entry.role, content=entry.content, name=entry.name, at=entry.at)


class ConversationPage(WireModel):
    """A page of what a conversation's memory is now, in reading order."""

    entries: list[EntryShown]
    version: int = Field(description="Rises whenever a summary takes the place of entries; -1 before the first.")
    tokens: int = Field(description="Estimated, of the whole memory.")
    next_cursor: str | None = Field(
        None, description="Gets the next page, unless a summary came in between; none: this is the end."
    )


class Problem(BaseModel):
    """What is wrong with a request (RFC 9457)."""

    title: str
    status: int
    detail: str = Field(description="What to do.")
    code: str = Field(description="A stable name for it.")


def page_of(snapshot: MemorySnapshot, limit: int, after: str | None) -> ConversationPage | None:
    """The page that comes after an entry; None when the memory has no such entry any more."""
    start = 0
    if after is not None:
        found = next((place for place, entry in enumerate(snapshot.entries) if entry.id == after), None)
        if found is None:
            return None
        start = found + 1
    entries = snapshot.entries[start : start + limit]
    more = start + limit < len(snapshot.entries)
    return ConversationPage(
        entries=[EntryShown.of(entry) for entry in entries],
        version=snapshot.version,
        tokens=snapshot.tokens,
        next_cursor=entries[-1].id if more else None,
    )
