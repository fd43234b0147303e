"""Taking values out of what is exported, by the paths of their fields."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from headrace.core.comparison import Outcome
from headrace.core.status import JobStatus
from headrace.errors import ArgumentsInvalid
from headrace.recordings import given_names

REDACTED: Final = "[redacted]"
_ANY: Final = "*"
_RECORDINGS, _MEMORY = "recordings", "memory"
# What a replay does not go by. All else says which job it is, how it went, and what rules it ran under: a text in its place
# breaks the replay, or makes another job of it.
_WITH_ALL_BELOW: Final = ("args", "ctx", "result", _RECORDINGS)
_EXACTLY: Final = frozenset(
    {
        ("error", "message"),
        ("error", "traceback"),
        ("orderingKey",),
        ("idempotencyKey",),
        ("progress", "text"),
        *((_MEMORY, name) for name in ("content", "summary", "name", "title")),
    }
)
_ALLOWED: Final = (
    "args.*, ctx.*, result and what is in it, error.message, error.traceback, orderingKey, idempotencyKey, progress.text, "
    "recordings.*, memory.content, memory.summary, memory.name and memory.title"
)
# By these a conversation's memory is found: whoever must not know them must not get the memory either.
_CONVERSATION: Final = frozenset({"userId", "conversationId"})

Path = tuple[str, ...]


class Redaction:
    """Puts `[redacted]` in the place of values.

    Args:
        paths: of fields, as the wire has them: `args.password`, `ctx.userId`, `result.token`, `error.message`. `*` is any name,
            and of a list each element is meant: a list keeps its length, whether the path leads to it or through it. An object
            that it leads to is replaced whole, in a list, too. `recordings.<name>` is what jobs got from outside under a name,
            with more behind it a part of that. `memory.content` is the text of the conversations' memory.
        lists_whole: a list that a path leads to is replaced whole, and not each of its elements.

    Attributes:
        paths: the same.
        counts: how often each path was met.

    Raises:
        ArgumentsInvalid: a path is none, or of something without which nothing can be replayed.
    """

    def __init__(self, paths: Collection[str] = (), *, lists_whole: bool = False) -> None:
        self.paths = tuple(paths)
        self._lists_whole = lists_whole
        self.counts: Counter[str] = Counter(dict.fromkeys(self.paths, 0))
        self._named = {path: _parts(path) for path in self.paths}
        self._jobs: dict[str, Path] = {}
        self._recordings: dict[str, str] = {}
        self._memory: dict[str, Path] = {}
        for path, (first, *rest) in self._named.items():
            if first == _RECORDINGS:
                self._recordings[path] = path.partition(".")[2]
            elif first == _MEMORY:
                self._memory[path] = tuple(rest)
            else:
                self._jobs[path] = (first, *rest)

    @property
    def hides_conversations(self) -> bool:
        """Whether who talked in which conversation must not be known: then no memory is exported."""
        return any(path[0] in ("args", "ctx") and path[1] in {*_CONVERSATION, _ANY} for path in self._jobs.values())

    def job(self, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """A job record, or a snapshot. What is hidden of its error is hidden of those of its attempts, too."""
        for told, path in self._jobs.items():
            raw = self._without(raw, path, told)
            attempts = raw.get("attempts")
            if path[0] == "error" and isinstance(attempts, list):
                raw = {**raw, "attempts": [self._without(each, path, told) for each in attempts]}
        return raw

    def recording(self, name: str, value: Any) -> Any:
        """What a job got from outside under a name."""
        for told, path in self._recordings.items():
            rest = _behind_any(path, name)
            if rest is not None:
                value = self._without(value, rest, told)
        return value

    def failure(self, name: str, value: Any) -> Any:
        """What a job's question to the outside raised. Whatever part of the answers is hidden, the text may quote it."""
        rests = {path: rest for path, own in self._recordings.items() if (rest := _behind_any(own, name)) is not None}
        if not rests:
            return value
        # A path of a part may be misspelt all the same.
        self.counts.update(path for path, rest in rests.items() if not rest)
        return {"type": value.get("type", ""), "message": REDACTED} if isinstance(value, Mapping) else REDACTED

    def hides(self, path: str) -> bool:
        """Whether a field of jobs, or a part of it, was taken out: nobody can choose by what it was."""
        wanted = path.split(".")
        return any(all(own in (_ANY, part) for own, part in zip(parts, wanted, strict=False)) for parts in self._jobs.values())

    @property
    def missed(self) -> Sequence[str]:
        """Paths with a name of the user's own that met nothing: it may be misspelt. The others cannot be."""
        named = {path: parts for path, parts in self._named.items() if not self.counts[path]}
        return [path for path, (first, *rest) in named.items() if first in _WITH_ALL_BELOW and set(rest) - {_ANY}]

    @property
    def warnings(self) -> Sequence[str]:
        """Where something that was taken out still stands."""
        if not self.counts["error.message"] or "error.traceback" in self.paths:
            return ()
        return ("error.message: each error.traceback ends with it: name that, too",)

    @property
    def touches_recordings(self) -> bool:
        """Whether a path is of recordings."""
        return bool(self._recordings)

    def memory(self, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """A record of a conversation."""
        for told, path in self._memory.items():
            raw = self._without(raw, path, told)
        return raw

    def _without(self, value: Any, path: Sequence[str], told: str) -> Any:
        if not path:
            self.counts[told] += 1
            return REDACTED if self._lists_whole else _with_elements(value, lambda _: REDACTED)
        first, *rest = path
        if isinstance(value, list):
            # Any name also stands for an element that has none.
            below = rest if (*path,) == (_ANY,) else path
            return _with_elements(value, lambda each: self._without(each, path if isinstance(each, Mapping) else below, told))
        if not isinstance(value, Mapping):
            return value
        return {name: self._without(each, rest, told) if first in (name, _ANY) else each for name, each in value.items()}


def redacted_outcome(outcome: Outcome, paths: Collection[str]) -> Outcome:
    """What came of a job, with `[redacted]` where it stands in a job of which these paths were taken out.

    Also in place of a list: how long it is now is not compared, nor could it be with exports that replaced lists whole.
    """
    if not paths:
        return outcome
    told: dict[str, Any] = {"result": outcome.result} if outcome.status is JobStatus.COMPLETED else {}
    if outcome.error_message is not None:
        told["error"] = {"message": outcome.error_message}
    hidden = Redaction(paths, lists_whole=True).job(told)
    return replace(outcome, result=hidden.get("result"), error_message=hidden.get("error", {}).get("message"))


def _with_elements(value: Any, made_of: Callable[[Any], Any]) -> Any:
    """A list with other elements, also in the lists within it, which may be nested deep; of anything else what is made of it."""
    if not isinstance(value, list):
        return made_of(value)
    whole: list[Any] = []
    left = [(value, whole)]
    while left:
        elements, made = left.pop()
        for each in elements:
            if isinstance(each, list):
                made.append([])
                left.append((each, made[-1]))
            else:
                made.append(made_of(each))
    return whole


def _parts(path: str) -> Path:
    parts = tuple(path.split("."))
    if not all(parts):
        raise ArgumentsInvalid(f"`redact` {path!r} is no path of a field: give it as args.password.")
    if parts[0] in (_RECORDINGS, "args", "ctx") and len(parts) == 1:
        raise ArgumentsInvalid(f"`redact` {path!r} is no path of a field: give {path}.* for all of it.")
    if parts[0] not in _WITH_ALL_BELOW and parts not in _EXACTLY:
        raise ArgumentsInvalid(f"`redact` {path!r}: a replay needs that. What can be left out is {_ALLOWED}.")
    return parts


def _behind_any(path: str, recorded: str) -> Path | None:
    """What of the path follows the name of a recording; None where it is of another one."""
    return next((rest for name in given_names(recorded) if (rest := _behind(path, name)) is not None), None)


def _behind(path: str, name: str) -> Path | None:
    """What of the path follows a name, which may have points in it."""
    if path == name:
        return ()
    if path.startswith(f"{name}."):
        return tuple(path.removeprefix(f"{name}.").split("."))
    first, _, rest = path.partition(".")
    if first == _ANY:
        return tuple(rest.split(".")) if rest else ()
    return None
