"""Programs that a test has started, and ends."""

from __future__ import annotations

import subprocess

PATIENCE_S = 20


def stop(process: subprocess.Popen[bytes]) -> None:
    """Asks it to end, and makes it where it does not."""
    process.terminate()
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
