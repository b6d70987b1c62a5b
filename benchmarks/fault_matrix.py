"""The whole fault matrix: every switch of the stand-in, in every way to wait, undisturbed, killed and cancelled at
every stage, and every row about doubt, clocks, full disks, bombs and hung requests: thousands of cells; the tests run
a part of it. Exit status 1 where a cell is broken.

    python benchmarks/fault_matrix.py [--processes 2] [--part] [--only TEXT]...
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "promises"))

from matrix_runner import run_shards, table


def main() -> int:
    """Run it and print it; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2, help="how many processes share the cells")
    parser.add_argument("--part", action="store_true", help="run the tests' part alone")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="run cells whose names hold TEXT")
    options = parser.parse_args()
    which = ["part" if options.part else "all", *(f"only={text}" for text in options.only)]
    since = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        results = run_shards(Path(folder), options.processes, *which)
    print("\n".join(table(results)))
    print(f"{time.monotonic() - since:.0f} s")
    broken = [result for result in results if result.problems]
    for result in broken:
        print(f"{result.cell}: {'; '.join(result.problems)}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
