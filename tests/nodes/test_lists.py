"""A list of pictures, for each of which the host runs the node by itself and all at once, is as good as a batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

WORKER = Path(__file__).with_name("list_worker.py")


def test_a_long_list_needs_few_handles_one_stream_and_pays_for_each_picture_once(serve: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("kontext_bridge.standin.picture.SIZES", ((256, 192),))  # quickly drawn
    bench = serve()
    done = subprocess.run(
        [sys.executable, str(WORKER), "300", "256"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["pictures"] == len(bench.server.billed) == 300, told
    assert told["handles"] <= 60 and told["threads"] <= 20, told
    assert told["left"] == 0, told
    assert len([one for one in bench.server.requests if one.route == "events"]) == 1
