"""Forks one process a job from one that has imported all that a job needs, which takes longer than most jobs do.

Reads one JSON job a line, forks, says the child's process id, waits for it to end, and says its exit status: the
number of the signal, negative, where it was killed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any


def serve(work: Callable[[dict[str, Any]], int]) -> None:
    """Run `work`, which gives the exit status, in a process of its own for each job on standard input."""
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = work(job)
            finally:
                os._exit(status)
        _say(child)
        _, ended = os.waitpid(child, 0)
        _say(os.waitstatus_to_exitcode(ended))


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()
