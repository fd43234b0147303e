"""The jars of Apache Kafka: fetched once, checked against pinned hashes, and kept.

`jars.lock.json` beside this file is the whole class path, file by file, each with its sha256. jgo is used for one thing
alone, to download a single artifact: it only logs a wrong checksum and keeps what was cut off, so every file goes through
our own check before it is moved into the cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from headrace.errors import LocalBrokerError

KAFKA_VERSION = "4.3.1"
DOWNLOADS_AT_ONCE = 8
DOWNLOAD_ATTEMPTS = 2
# An AOT cache names the time of each jar it was made from. With one fixed time, jars fetched anew still fit it.
JAR_MODIFIED_AT = 1_700_000_000

SCRATCH_LIFE_SECONDS = 3600.0

INSTALL_ADVICE = "Install it with: pip install 'headrace[local]'"

# Puts the artifact at a Maven path into a directory of its own and returns where it lies.
Download = Callable[[str, Path], Path]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Jar:
    """One file of the class path: its path in a Maven repository, and what it must hash to."""

    maven_path: str
    sha256: str

    @property
    def name(self) -> str:
        return self.maven_path.rpartition("/")[2]


def locked_jars() -> tuple[Jar, ...]:
    """The pinned class path, in an order that never changes (an AOT cache depends on it)."""
    text = resources.files(__package__).joinpath("jars.lock.json").read_text(encoding="utf-8")
    return tuple(Jar(path, sha256) for path, sha256 in sorted(json.loads(text).items()))


def lock_fingerprint(jars: tuple[Jar, ...]) -> str:
    """A short name for exactly this set of jars."""
    return hashlib.sha256("\n".join(f"{jar.maven_path} {jar.sha256}" for jar in jars).encode()).hexdigest()[:16]


def provide_jars(
    cache_directory: Path, *, jars: tuple[Jar, ...] | None = None, download: Download | None = None
) -> tuple[Path, ...]:
    """Return the class path, fetching what the cache lacks or holds damaged.

    Any number of processes may do this at once: files appear in the cache whole and checked, by an atomic rename.

    Raises:
        LocalBrokerError: jgo is missing, a download failed, or a file was wrong twice.
    """
    wanted = locked_jars() if jars is None else jars
    directory = cache_directory / f"kafka-{KAFKA_VERSION}-{lock_fingerprint(wanted)}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _complete(directory, wanted, download)
    except OSError as error:
        raise unusable_cache(cache_directory, error) from error
    return tuple(directory / jar.name for jar in wanted)


def unusable_cache(cache_directory: Path, error: OSError) -> LocalBrokerError:
    """The error for a cache directory that cannot be read or written."""
    return LocalBrokerError(
        f"The cache directory {cache_directory} cannot be used ({error}); "
        "set HEADRACE_CACHE_DIRECTORY to one that can be written."
    )


def _complete(directory: Path, wanted: tuple[Jar, ...], download: Download | None) -> None:
    """Fetch what is missing or damaged."""
    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE, thread_name_prefix="headrace-jars") as pool:
        present = pool.map(lambda jar: _is_intact(directory / jar.name, jar.sha256), wanted)
        missing = [jar for jar, intact in zip(wanted, present, strict=True) if not intact]
        if missing:
            logger.info("fetching %d files of Apache Kafka %s", len(missing), KAFKA_VERSION)
            fetch = download or _jgo_download()
            _remove_left_over(directory)
            for _ in pool.map(lambda jar: _fetch(jar, directory, fetch), missing):
                pass


def _fetch(jar: Jar, directory: Path, download: Download) -> None:
    """Download one file, check it, and move it into the cache; try once more with nothing kept if it is wrong."""
    found = ""
    for _ in range(DOWNLOAD_ATTEMPTS):
        with _scratch_directory(directory) as scratch:
            try:
                fetched = download(jar.maven_path, scratch)
            except Exception as error:  # whatever the downloader and its HTTP library raise
                raise LocalBrokerError(
                    f"Cannot download {jar.name} of Apache Kafka {KAFKA_VERSION}: {type(error).__name__}: {error}. "
                    "The first start needs the network; `headrace broker fetch` gets all that later starts need. "
                    "Or name a running broker: --bootstrap-servers, or KAFKA_BOOTSTRAP_SERVERS."
                ) from error
            found = sha256_of(fetched)
            if found == jar.sha256:
                os.utime(fetched, (JAR_MODIFIED_AT, JAR_MODIFIED_AT))
                fetched.replace(directory / jar.name)
                return
    raise LocalBrokerError(
        f"{jar.name} is not the file that was pinned, {DOWNLOAD_ATTEMPTS} times: its sha256 is {found} and should be "
        f"{jar.sha256}. A proxy or mirror may be altering or cutting downloads. Nothing of it was kept."
    )


@contextmanager
def _scratch_directory(directory: Path) -> Iterator[Path]:
    # Inside the cache, so that the final rename stays on one file system.
    with tempfile.TemporaryDirectory(prefix=".download-", dir=directory) as name:
        yield Path(name)


def _remove_left_over(directory: Path) -> None:
    """Remove what a process left that was killed while it fetched; a younger one may be another's that is at it."""
    for scratch in directory.glob(".download-*"):
        with contextlib.suppress(OSError):
            if time.time() - scratch.stat().st_mtime > SCRATCH_LIFE_SECONDS:
                shutil.rmtree(scratch, ignore_errors=True)


def _is_intact(path: Path, sha256: str) -> bool:
    try:
        if sha256_of(path) != sha256:
            return False
        if int(path.stat().st_mtime) != JAR_MODIFIED_AT:
            os.utime(path, (JAR_MODIFIED_AT, JAR_MODIFIED_AT))
    except FileNotFoundError:
        return False
    return True


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _jgo_download() -> Download:
    try:
        from jgo.maven import MavenContext
    except ImportError as error:
        raise LocalBrokerError(f"A broker on this machine needs jgo, which downloads Apache Kafka. {INSTALL_ADVICE}") from error

    def download(maven_path: str, scratch: Path) -> Path:
        group, artifact, version, _ = maven_path.rsplit("/", 3)
        context = MavenContext(repo_cache=scratch, timeout=60)
        return Path(context.project(group.replace("/", "."), artifact).at_version(version).artifact().resolve())

    return download
