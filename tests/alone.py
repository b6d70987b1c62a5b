"""Code that is to run in a Python of its own, as what it imports is what is asked about."""

from __future__ import annotations

import subprocess
import sys


def succeeds_alone(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
