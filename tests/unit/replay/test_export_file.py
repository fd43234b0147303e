"""An export tells what the file system refuses, and leaves nothing of it."""

from __future__ import annotations

import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import ArgumentsInvalid, ExportDamaged
from headrace.replay.exports.export_format import ExportHeader, ExportWriter, read_lines
from headrace.replay.exports.file_history import read_file_history
from headrace.replay.history import Span

SPAN = Span(0, 100_000)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ExportDamaged, match="No such file"):
        read_file_history(tmp_path / "nothing.gz")


def files_of(directory: Path) -> list[str]:
    return [each.name for each in directory.iterdir()]


def written_with(writer: ExportWriter, *lines: str) -> None:
    with writer:
        for line in lines:
            writer.add("job", text=line)
        writer.finish(ExportHeader(namespace="n", span=SPAN, counts=writer.counts))


@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "force"])
def test_a_directory_is_refused_before_anything_is_read(tmp_path: Path, overwrite: bool) -> None:
    with pytest.raises(ArgumentsInvalid, match="is a directory"), ExportWriter(tmp_path, overwrite=overwrite):
        pytest.fail("the export has begun")
    assert files_of(tmp_path) == []


@pytest.mark.parametrize("links", [True, False], ids=["links", "no-links"])
def test_a_file_that_comes_meanwhile_is_left_alone(tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not links:
        monkeypatch.setattr("os.link", no_links)
    path = tmp_path / "span.gz"
    with (
        pytest.raises(ArgumentsInvalid, match="is there already: name another file, or allow that by `overwrite`"),
        ExportWriter(path) as writer,
    ):
        path.write_text("mine")
        writer.finish(ExportHeader(namespace="n", span=SPAN))
    assert (path.read_text(), files_of(tmp_path)) == ("mine", [path.name])
    path.unlink()
    written_with(ExportWriter(path), "a")
    assert (len(list(read_lines(path))), files_of(tmp_path), path.stat().st_mode & 0o777) == (1, [path.name], 0o600)


def no_links(*_: Any) -> None:
    raise PermissionError(1, "Operation not permitted")


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """As on a disk on which there is no more room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_there_is_no_room_for_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    path, much = tmp_path / "span.gz", random.Random(1).randbytes(2_000_000).hex()
    with no_file_beyond(1_000_000), pytest.raises(ArgumentsInvalid, match=r"span\.gz cannot be written: File too large"):
        written_with(ExportWriter(path), *[much] * 3)
    with pytest.raises(ArgumentsInvalid, match="File too large"), ExportWriter(path) as writer:
        writer.add("job", text=much)
        with no_file_beyond(1_000_000):
            writer.finish(ExportHeader(namespace="n", span=SPAN, counts=writer.counts))
    path.write_text("mine")
    path.chmod(0o600)
    with no_file_beyond(1_000_000), pytest.raises(ArgumentsInvalid, match="File too large"):
        written_with(ExportWriter(path, overwrite=True), much)
    assert (path.read_text(), files_of(tmp_path)) == ("mine", [path.name])
