"""Everything that `make benchmarks` runs, one after the other, and at the end what was missed.

python benchmarks/all.py [NAME ...]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAMS = {
    "encoding": [""],
    "ledger": [""],
    "own_cost": [""],
    "waiting": [""],
    "big_batch": ["--pictures 64", "--pictures 256 --overlap"],
    "importing": [""],
}


def main() -> int:
    """1 where any bound was missed."""
    missed = []
    for name in sys.argv[1:] or PROGRAMS:
        print(f"\n== {name}", flush=True)
        program = Path(__file__).with_name(f"{name}.py")
        for options in PROGRAMS[name]:
            if subprocess.run([sys.executable, str(program), *options.split()], check=False).returncode:
                missed.append(f"{name} {options}".strip())
    print("\nmissed: " + ", ".join(missed) if missed else "\nall bounds kept")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
