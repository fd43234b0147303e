"""The supervisor as a program, which is started by its path.

    python program.py --processes N --log-level LEVEL -- <arguments of `headrace engine`>

`import headrace` would bring in all of it, some 80 MB and most of a second. So a package of that name is made here that has its
folder, and runs none of its code; only the standard library and what stands beside this file is imported.
"""

from __future__ import annotations

import argparse
import ctypes
import logging
import sys
import types
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--log-level", required=True)
    parser.add_argument("arguments", nargs="*")
    options = parser.parse_args()
    logging.basicConfig(level=options.log_level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    if sys.platform == "linux":
        # Children that outlive their engine come to this process to be waited for: until then their group is not empty.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    from headrace.supervisor.supervisor import Supervisor

    python = [sys.executable, "-m"]
    engine, rites = [*python, "headrace", "engine"], [*python, "headrace.supervisor.last_rites"]
    return Supervisor(engine, options.arguments, rites, options.processes).run()


if __name__ == "__main__":
    # Modules in the folder of this file, which Python puts first, are to be found by their whole names alone.
    here = Path(__file__).resolve().parent
    sys.path[:] = [folder for folder in sys.path if not folder or Path(folder).resolve() != here]
    headrace = types.ModuleType("headrace")
    headrace.__path__ = [str(here.parent)]
    sys.modules["headrace"] = headrace
    sys.exit(main())
