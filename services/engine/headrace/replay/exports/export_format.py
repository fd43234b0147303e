"""The file of an export: JSON lines, compressed by gzip. The first line tells what follows, and its digest.

| line | what it has |
|---|---|
| header | `format`, `version`, `namespace`, `from`, `to`, `workers`, `redacted`, `counts`, and `sha256` |
| `worker` | the definition of a worker, be there jobs of it in the file or not |
| `job` | a job record, where it stood, and the snapshot that counted; `damaged` where that cannot be read |
| `recording` | what an attempt of a job got from outside |
| `memory` | a record of a conversation that a job is about |

`sha256` is that of all lines after the header, and then of the header's other fields. It is a file of two gzip members: the
header is known when all else is written, and stands before it.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import orjson

from headrace.codec import encode_foreign, is_readable
from headrace.core.timestamps import format_timestamp, parse_timestamp
from headrace.errors import ArgumentsInvalid, ExportDamaged
from headrace.replay.history import Span

FORMAT: Final = "headrace-export"
VERSION: Final = 1
_LEVEL: Final = 4
_LONGEST_HEADER: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportHeader:
    """What an export says of itself.

    Attributes:
        span: in which the jobs were accepted.
        workers: whose jobs they are, as they were asked for; all workers' where none is named.
        redacted: the paths of what was taken out.
        counts: how many lines of each kind follow.
        digest: SHA-256 of these and of the header's other fields, in hex.
    """

    namespace: str
    span: Span
    workers: tuple[str, ...] = ()
    redacted: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    digest: str = ""

    def to_wire(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "namespace": self.namespace,
            "from": format_timestamp(self.span.start),
            "to": format_timestamp(self.span.end),
            "workers": list(self.workers),
            "redacted": list(self.redacted),
            "counts": dict(self.counts),
            "sha256": self.digest,
        }

    @classmethod
    def from_wire(cls, raw: Mapping[str, Any]) -> ExportHeader:
        """Raises KeyError, TypeError or ValueError where it is none."""
        return cls(
            namespace=str(raw["namespace"]),
            span=Span(parse_timestamp(raw["from"]), parse_timestamp(raw["to"])),
            workers=_texts(raw["workers"]),
            redacted=_texts(raw["redacted"]),
            counts={str(name): int(count) for name, count in raw["counts"].items()},
            digest=str(raw["sha256"]),
        )


def _texts(raw: Any) -> tuple[str, ...]:
    """Raises TypeError where it is no list of texts."""
    if not isinstance(raw, list) or not all(isinstance(each, str) for each in raw):
        raise TypeError
    return tuple(raw)


class ExportWriter:
    """Writes an export beside its place, and puts it there when it is whole. A context manager: whatever fails leaves nothing.

    Args:
        overwrite: whether a file of that name may be there.

    Attributes:
        counts: how many lines of each kind were written.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self._path = path
        self._overwrite = overwrite
        self._digest = hashlib.sha256()
        self._part: Path | None = None
        self._file: gzip.GzipFile | None = None
        self.counts: dict[str, int] = {"worker": 0, "job": 0, "recording": 0, "memory": 0}

    def __enter__(self) -> ExportWriter:
        """Raises ArgumentsInvalid where the file is there already, or none can be made."""
        with self._refusals():
            if self._path.is_dir():
                raise ArgumentsInvalid(f"{self._path} is a directory: name a file in it.")
            if self._path.exists() and not self._overwrite:
                raise FileExistsError
            number, name = tempfile.mkstemp(prefix=f".{self._path.name}.", suffix=".part", dir=self._path.parent)
            os.close(number)
            self._part = Path(name)
            self._file = gzip.open(self._part, "wb", compresslevel=_LEVEL)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with suppress(OSError):  # of a full disk, as has been said
                self._file.close()
        for part in (self._part, self._whole):
            if part is not None:
                part.unlink(missing_ok=True)

    def add(self, kind: str, **fields: Any) -> bool:
        """Writes a line; False where it is left out, as it is nested too deep for whoever reads it.

        Raises:
            ArgumentsInvalid: it cannot be written, as on a full disk.
        """
        assert self._file is not None
        line = encode_foreign({"type": kind, **fields})
        if not is_readable(line):
            return False
        line += b"\n"
        self._digest.update(line)
        with self._refusals():
            self._file.write(line)
        self.counts[kind] += 1
        return True

    def finish(self, header: ExportHeader) -> ExportHeader:
        """Puts the file in its place, with the header before the lines. Returns the header with the digest.

        Raises:
            ArgumentsInvalid: that cannot be done, or a file of that name has come meanwhile.
        """
        assert self._file is not None and self._part is not None and self._whole is not None
        self._digest.update(_digested(header.to_wire()))
        header = replace(header, digest=self._digest.hexdigest())
        with self._refusals():
            self._file.close()
            with open(self._whole, "wb", opener=_for_its_owner) as whole, self._part.open("rb") as body:
                whole.write(gzip.compress(orjson.dumps(header.to_wire(), option=orjson.OPT_APPEND_NEWLINE)))
                shutil.copyfileobj(body, whole, 1 << 20)
                whole.flush()
                os.fsync(whole.fileno())
            if self._overwrite:
                self._whole.replace(self._path)
            else:
                _put_where_nothing_is(self._whole, self._path)
        return header

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Tells what the system refuses as a fault of the place that was named."""
        try:
            yield
        except FileExistsError:
            raise ArgumentsInvalid(f"{self._path} is there already: name another file, or allow that by `overwrite`.") from None
        except OSError as error:
            raise ArgumentsInvalid(f"{self._path} cannot be written: {error.strerror or error}.") from None

    @property
    def _whole(self) -> Path | None:
        return None if self._part is None else self._part.with_suffix(".whole")


def _put_where_nothing_is(file: Path, place: Path) -> None:
    """Gives a file a name. Raises FileExistsError where another one has it."""
    try:
        os.link(file, place)
    except FileExistsError:
        raise
    except OSError:  # the file system knows no second names
        os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        file.replace(place)


def _for_its_owner(path: str, flags: int) -> int:
    """Opens a file that nobody else can read: it has what users wrote."""
    return os.open(path, flags, 0o600)


def read_header(path: Path) -> ExportHeader:
    """What an export says of itself.

    Raises:
        ExportDamaged: the file is no export, or of a version that is not known.
    """
    with _reading(path) as lines:
        return _parsed(path, _header(path, lines))


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of an export after its header. Whether they are whole is known at the end.

    Raises:
        ExportDamaged: the file is no export, or not all of one.
    """
    with _reading(path) as lines:
        raw, digest, counts = _header(path, lines), hashlib.sha256(), Counter[str]()
        header = _parsed(path, raw)
        while line := _next(path, lines):
            digest.update(line)
            try:
                decoded = orjson.loads(line)
                counts[decoded["type"]] += 1
            except (ValueError, TypeError, KeyError):
                raise _damaged(path, "a line is none of an export") from None
            yield decoded
        digest.update(_digested(raw))
        if digest.hexdigest() != header.digest:
            raise _damaged(path, "its digest is not that of what it holds: it was cut off, or changed")
        if counts != Counter(header.counts):
            raise _damaged(path, "it holds other lines than its header counts")


def _digested(raw: Mapping[str, Any]) -> bytes:
    """What of a header the digest is made of."""
    return orjson.dumps({name: value for name, value in raw.items() if name != "sha256"})


def _reading(path: Path) -> gzip.GzipFile:
    try:
        return gzip.open(path, "rb")
    except OSError as error:
        raise ExportDamaged(f"{path} cannot be read: {error.strerror}.") from None


def _header(path: Path, lines: gzip.GzipFile) -> Mapping[str, Any]:
    """The header, as JSON has it."""
    line = _next(path, lines, _LONGEST_HEADER)
    try:
        raw: dict[str, Any] = orjson.loads(line)
        if raw["format"] != FORMAT:
            raise ValueError
        version = raw["version"]
    except (KeyError, TypeError, ValueError):
        raise _no_header(path) from None
    if version != VERSION:
        raise ExportDamaged(
            f"{path} is an export of version {version}, and this headrace knows version {VERSION}: use a newer one."
        )
    return raw


def _parsed(path: Path, raw: Mapping[str, Any]) -> ExportHeader:
    try:
        return ExportHeader.from_wire(raw)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _no_header(path) from None


def _no_header(path: Path) -> ExportDamaged:
    return _damaged(path, "its first line is not that of an export")


def _next(path: Path, lines: gzip.GzipFile, most: int = -1) -> bytes:
    try:
        return lines.readline(most)
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, str(error) or type(error).__name__) from None


def _damaged(path: Path, what: str) -> ExportDamaged:
    return ExportDamaged(f"{path} is no export of headrace, or not all of one: {what.rstrip('.')}. Export it again.")
