"""The cache of loaded and linked classes that makes a broker start in a third of the time.

Java makes it from a run that is recorded; that run, and the making, take a quarter of a minute, so they happen once, in a
broker of their own that yields to everything else. A cache that is missing, cut or stale only costs time, but one with
changed bytes crashes Java: its sha256 is checked before every use.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from headrace.broker.jars import sha256_of, unusable_cache
from headrace.errors import LocalBrokerError


@dataclass(frozen=True, slots=True)
class AheadOfTimeCache:
    """A cache file and, beside it, its sha256."""

    path: Path

    @classmethod
    def of(cls, cache_directory: Path, fingerprint: str) -> AheadOfTimeCache:
        """The cache for one installation."""
        return cls(cache_directory.absolute() / f"kafka-{fingerprint}.aot")

    @property
    def checksum_path(self) -> Path:
        return self.path.with_name(self.path.name + ".sha256")

    def is_usable(self) -> bool:
        """Whether the file is there and whole."""
        try:
            return sha256_of(self.path) == self.checksum_path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return False

    def flags(self) -> tuple[str, ...]:
        """What Java is told to use the cache; nothing when there is none. A damaged one is removed."""
        if self.is_usable():
            return (f"-XX:AOTCache={self.path}", "-Xlog:aot*=off", "-Xlog:cds*=off")
        # Where nothing can be written there is nothing to remove, and a broker works without.
        with contextlib.suppress(LocalBrokerError), self.making() as mine:
            # Not while it is being made: the file and its sha256 come one after the other.
            if mine and not self.is_usable():
                self.discard()
        return ()

    def discard(self) -> None:
        """Remove the cache; it is made anew at a later start."""
        for path in (self.checksum_path, self.path):
            with contextlib.suppress(OSError):
                path.unlink()

    def adopt(self, made: Path) -> None:
        """Take a freshly made file, on the same file system, as the cache."""
        checksum = made.with_name(made.name + ".sha256")
        checksum.write_text(sha256_of(made) + "\n", encoding="ascii")
        made.replace(self.path)
        checksum.replace(self.checksum_path)

    @contextmanager
    def making(self) -> Iterator[bool]:
        """Hold the right to make the cache; yields False when another process, or thread, has it.

        Raises:
            LocalBrokerError: nothing can be written there.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise unusable_cache(self.path.parent, error) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)
