"""A remote edit through the whole pack: the headless side, the nodes, the client and the stand-in."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import node
from comfy_server import REPOSITORY, comfy_server_with
from kontext_bridge.headless.__main__ import object_info, pack_nodes
from kontext_bridge.standin.records import Status, Timing
from kontext_bridge.standin.server import StandIn
from PIL import Image

LIMIT_S = 240


def with_defaults(class_type: str, **inputs: Any) -> dict[str, Any]:
    """A node of the pack with its widgets as they are when it is dropped on the canvas."""
    widgets = object_info(asyncio.run(pack_nodes()))[class_type]["input"]["optional"]
    values = {name: options["default"] for name, (_, options) in widgets.items() if "default" in options}
    return node(class_type, **{**values, **inputs})


def edit() -> dict[str, Any]:
    return {
        "1": node("EmptyImage", width=64, height=48, batch_size=2, color=0xFF0000),
        "2": with_defaults("KontextEdit", image=["1", 0], prompt="make it blue", seed=5),
        "3": node("SaveImage", images=["2", 0], filename_prefix="edit"),
    }


def environment(standin: StandIn, folder: Path) -> dict[str, str]:
    folder.mkdir()
    return {
        "OXEN_API_KEY": standin.key,
        "OXEN_BASE_URL": standin.url,
        "KONTEXT_BRIDGE_HOME": str(folder),
        "HOME": str(folder),
    }


def headless(standin: StandIn, folder: Path) -> subprocess.Popen[str]:
    path = folder / "workflow.json"
    path.write_text(json.dumps(edit()))
    return subprocess.Popen(
        [sys.executable, "-m", "kontext_bridge.headless", path, "--output", folder / "out", "--json"],
        env={**os.environ, **environment(standin, folder / "home")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def pixels(path: Path) -> Any:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_an_edit_comes_back_as_pictures_with_the_workflow_but_not_the_key(tmp_path: Path) -> None:
    with StandIn(timing=Timing(0.05, 0.05)) as standin:
        out, err = headless(standin, tmp_path).communicate(timeout=LIMIT_S)
    files = json.loads(out)["nodes"]["3"]["files"]
    assert [Path(file).name for file in files] == ["edit_00001_.png", "edit_00002_.png"]
    assert len(json.loads(json.loads(out)["nodes"]["2"]["texts"]["info"])["edits"]) == 2
    for written in (out.encode(), err.encode(), *(Path(file).read_bytes() for file in files)):
        assert standin.key.encode() not in written
    with Image.open(files[0]) as saved:
        assert json.loads(saved.info["prompt"]) == edit()


def test_ctrl_c_cancels_the_jobs_at_the_service_before_the_run_ends(tmp_path: Path) -> None:
    with StandIn(timing=Timing(0.05, 10 * LIMIT_S)) as standin:
        process = headless(standin, tmp_path)
        # asked about by its id, so that the run has the answer with the id
        standin.wait_for(lambda s: len({r.path for r in s.requests if r.route == "row"}) == 2, timeout=LIMIT_S)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT_S)
        states = [job.status for job in standin.jobs.values()]
    assert states == [Status.CANCELLED] * 2
    assert (process.returncode, out) == (1, "")
    assert err.splitlines()[-1] == "Interrupted in node 2 (KontextEdit)."


@pytest.mark.comfyui
def test_comfyui_makes_the_same_pictures_of_the_same_edit(tmp_path: Path) -> None:
    with StandIn(timing=Timing(0.05, 0.05)) as standin:
        out, _ = headless(standin, tmp_path).communicate(timeout=LIMIT_S)
        theirs = tmp_path / "comfyui"
        variables = environment(standin, tmp_path / "other-home")
        with comfy_server_with({"kontext-bridge": REPOSITORY}, theirs, variables) as server:
            assert server.run(edit())["status"]["status_str"] == "success"
    ours = [Path(file) for file in json.loads(out)["nodes"]["3"]["files"]]
    assert len(standin.billed) == 4
    for file in ours:
        assert np.array_equal(pixels(file), pixels(theirs / "output" / file.name))
