"""docs/workers.md, "Tests": its workers and their tests, run as they stand there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.markdown import ROOT, blocks

DOCUMENT = ROOT / "docs" / "workers.md"
FILES = ["orders.py", "test_orders.py"]


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    files = [block for block in blocks(DOCUMENT, "python") if block.file in FILES]
    assert [block.file for block in files] == FILES
    for block in files:
        (tmp_path / str(block.file)).write_text(block.code)
    without = [word for plugin in ("asyncio", "xdist", "cacheprovider") for word in ("-p", f"no:{plugin}")]
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", *without, FILES[-1]]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{files[-1].code.count('def test_')} passed" in ran.stdout
