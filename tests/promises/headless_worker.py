"""Command-line runs in processes that may be killed, forked from one that has imported torch and the pack already."""

from __future__ import annotations

import asyncio
import os
import traceback
from typing import Any

from forking import serve
from kontext_bridge.headless.__main__ import main, pack_nodes


def run(job: dict[str, Any]) -> int:
    """One run with its arguments and variables; what it prints goes into its log."""
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(job["environment"])
    try:
        return main(job["arguments"])
    except BaseException:
        traceback.print_exc()
        return 1


if __name__ == "__main__":
    asyncio.run(pack_nodes())  # for what it imports
    serve(run)
