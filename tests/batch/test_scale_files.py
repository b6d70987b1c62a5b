"""The examples of docs/scale.md, with a program in Python's place that says what it was called with."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "scale"
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("bash") is None, reason="shell scripts of Linux"
)


def said(script: str, tmp_path: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    stub = tmp_path / "bin" / "python"
    stub.parent.mkdir(exist_ok=True)
    stub.write_text('#!/bin/sh\necho "$KONTEXT_BRIDGE_HOME" "$KONTEXT_BRIDGE_MAX_IN_FLIGHT" "$@"\n')
    stub.chmod(0o755)
    environment = {"PATH": f"{stub.parent}:{os.environ['PATH']}", **variables}
    return subprocess.run([EXAMPLES / script, *words], capture_output=True, text=True, env=environment, timeout=60)


def test_each_part_of_the_slurm_array_has_its_own_ledger_and_none_is_left_out(tmp_path: Path) -> None:
    text = (EXAMPLES / "slurm.sh").read_text()
    first, last, at_once = (int(one) for one in re.findall(r"--array=(\d+)-(\d+)%(\d+)", text)[0])
    assert (first, f"parts={last}") == (1, *re.findall(r"^parts=\d+", text, re.MULTILINE))
    assert at_once * int(re.findall(r"MAX_IN_FLIGHT=(\d+)", text)[0]) <= 8
    for part in (1, last):
        # what Slurm says where two parts are submitted again
        given = {"SLURM_ARRAY_TASK_ID": str(part), "SLURM_ARRAY_TASK_COUNT": "2", "BATCH": "/shared/my batch"}
        done = said("slurm.sh", tmp_path, "--usd", "5", **given)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"/shared/my batch/ledgers/{part}-of-{last} 2 -m kontext_bridge.batch ")
        assert f"--shard {part}/{last} " in done.stdout and done.stdout.endswith("--usd 5\n")


def test_a_part_without_its_folder_or_number_does_not_start(tmp_path: Path) -> None:
    assert said("slurm.sh", tmp_path, BATCH="/shared").stdout == ""
    assert said("slurm.sh", tmp_path, SLURM_ARRAY_TASK_ID="1").stdout == ""


def test_a_container_whose_ledger_would_go_with_it_sends_nothing(tmp_path: Path) -> None:
    words = ("/pictures", "--output", "/results", "--prompt", "make it night")
    refused = said("start.sh", tmp_path, *words, KONTEXT_BRIDGE_HOME=str(tmp_path))
    assert refused.returncode == 1 and refused.stdout == "" and "Nothing was sent" in refused.stderr
    mount = "/proc"  # a mount wherever tests run
    taken = said("start.sh", tmp_path, *words, KONTEXT_BRIDGE_HOME=mount)
    assert taken.stdout == f"{mount}  -m kontext_bridge.batch {' '.join(words)}\n"
    for free in ("--demo", "--local=m", "--dry-run", "--help"):
        assert "kontext_bridge.batch" in said("start.sh", tmp_path, free, KONTEXT_BRIDGE_HOME=str(tmp_path)).stdout
