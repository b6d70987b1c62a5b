"""The stand-in in a process of its own, so that what it computes is not counted as the pack's."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator

from kontext_bridge.oxen.credentials import Account

_KEY = "standin-key"


@contextlib.contextmanager
def standin(*arguments: str, gives_way: bool = False) -> Iterator[Account]:
    """An account at a stand-in that makes nobody wait, or as these arguments of its command say.

    gives_way: it computes on the cores that nobody else wants, as the service, which is elsewhere, takes none.
    """
    command = [sys.executable, "-m", "kontext_bridge.standin", "--queued", "0", "--processing", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    if gives_way:
        os.setpriority(os.PRIO_PROCESS, process.pid, 19)
    assert process.stdout is not None
    try:
        found = re.search(r"http://[\w.:]+", process.stdout.readline())
        assert found is not None, "the stand-in did not start"
        yield Account(found[0], _KEY)
    finally:
        process.terminate()
        process.wait()


def load() -> str:
    """How busy the machine is, for beside a figure."""
    return f"load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores"


def is_quiet() -> bool:
    """Whether seconds by the clock tell of this program and not of others."""
    return os.getloadavg()[0] < (os.cpu_count() or 1)
