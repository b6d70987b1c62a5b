"""The headless side against a real ComfyUI: what both say of a node, and what both make of a workflow."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from cases import REFUSED, RUNS, TYPES, Workflow, node
from comfy_server import REPOSITORY, ComfyServer, comfyui
from kontext_bridge.headless.__main__ import object_info, pack_nodes
from kontext_bridge.headless.folders import RunFolders
from kontext_bridge.headless.outputs import RunResult
from kontext_bridge.kontext.demo.shipped import demo_loras
from PIL import Image

pytestmark = pytest.mark.comfyui
Run = Callable[..., RunResult]


def assert_same_info(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    ours = json.loads(json.dumps(ours))
    for id in ours:
        assert list(ours[id]) == list(theirs[id]), id
        for key in ours[id]:
            # As text: the order of inputs is the order of widgets, and dicts compare without it.
            assert json.dumps(ours[id][key]) == json.dumps(theirs[id][key]), (id, key)


def test_both_say_the_same_of_every_node_of_the_pack(comfy_server: ComfyServer) -> None:
    ours = object_info(asyncio.run(pack_nodes()))
    theirs = comfy_server.get("/object_info")
    loaded = {id for id, one in theirs.items() if one["python_module"] == "custom_nodes.kontext-bridge"}
    assert set(ours) == loaded
    # Only ComfyUI has folders of models; in an empty one it has the LoRA that comes with the pack.
    lora = ours["KontextLoRA"]["input"]["required"]["file"][1]
    assert lora["options"] == []
    lora["options"] = list(demo_loras())
    assert_same_info(ours, theirs)


def test_both_say_the_same_of_every_kind_of_input(comfy_server: ComfyServer, sample_pack: ModuleType) -> None:
    ours = object_info(sample_pack.NODES)
    for one in ours.values():
        one["python_module"] = "custom_nodes.sample-pack"
    assert_same_info(ours, comfy_server.get("/object_info"))


@pytest.mark.parametrize("case", REFUSED)
def test_comfyui_refuses_what_is_refused_here(case: str, comfy_server: ComfyServer) -> None:
    workflow, kinds = REFUSED[case]
    status, reply = comfy_server.post("/prompt", {"prompt": workflow})
    assert status == 400
    node_kinds = {error["type"] for one in reply["node_errors"].values() for error in one["errors"]}
    assert (node_kinds or {reply["error"]["type"]}) == kinds


@pytest.mark.parametrize("case", RUNS)
def test_comfyui_shows_what_is_shown_here(case: str, comfy_server: ComfyServer) -> None:
    workflow, texts = RUNS[case]
    outputs = comfy_server.run(workflow)["outputs"]
    assert {id: one["text"] for id, one in outputs.items() if "text" in one} == texts


def pictures(folder: Path) -> dict[str, Any]:
    found = {}
    for path in sorted(folder.rglob("*.png")):
        with Image.open(path) as picture:
            embedded = {key: json.loads(value) for key, value in picture.info.items()}
            for one in embedded["prompt"].values():
                # ComfyUI's note to its own cache, which a headless run has none of.
                one.pop("is_changed", None)
            found[path.name] = (picture.mode, np.asarray(picture).tolist(), embedded)
    return found


def test_both_save_the_same_pictures_under_the_same_names(
    comfy_server: ComfyServer, run: Run, folders: RunFolders
) -> None:
    rng = np.random.default_rng(1)
    rgba = rng.integers(0, 256, (6, 9, 4), np.uint8)
    for folder in (folders.source, comfy_server.base / "input"):
        Image.fromarray(rgba).save(folder / "alpha.png")
        Image.fromarray(rgba[..., :3]).save(folder / "plain.png")
    workflow: Workflow = {
        "1": node("LoadImage", image="alpha.png"),
        "2": node("LoadImage", image="plain.png"),
        "3": node("EmptyImage", width="5", height=4, batch_size=2, color=0x0A141E),
        "4": node("SaveImage", images=["1", 0], filename_prefix="parity/%width%x%height%"),
        "5": node("SaveImage", images=["2", 0], filename_prefix="parity/plain"),
        "6": node("SaveImage", images=["3", 0], filename_prefix="parity/empty"),
    }
    ours = run(workflow)
    assert comfy_server.run(workflow)["status"]["status_str"] == "success"
    assert pictures(folders.output / "parity") == pictures(comfy_server.base / "output" / "parity")
    assert len(pictures(folders.output / "parity")) == 4
    assert {len(one.files) for one in ours.nodes.values()} == {0, 1, 2}


def test_a_failing_node_is_reported_with_the_same_words(comfy_server: ComfyServer) -> None:
    status = comfy_server.run({"1": node("SampleFail", text="no credits left")})["status"]
    error = next(data for event, data in status["messages"] if event == "execution_error")
    assert (error["node_id"], error["exception_message"].strip()) == ("1", "no credits left")


@pytest.fixture
def real_python(tmp_path: Path) -> Callable[[str], str]:
    """Runs a script in the Python that runs ComfyUI, with this pack importable; gives what it prints."""
    _, python = comfyui()
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "kontext_bridge").symlink_to(REPOSITORY, target_is_directory=True)
    paths = {"PYTHONPATH": str(tmp_path / "packages"), "PYTHONDONTWRITEBYTECODE": "1"}

    def run_script(script: str) -> str:
        command = [python, "-c", script]
        done = subprocess.run(command, env={**os.environ, **paths}, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run_script


def test_where_comfyui_is_importable_its_own_api_is_used(real_python: Callable[[str], str]) -> None:
    tree, _ = comfyui()
    script = "import kontext_bridge.headless, comfy_api.latest as api; print(api.__file__)"
    assert Path(real_python(script).strip()).is_relative_to(tree)


def arguments(io: Any, ui: Any, wanted: list[str]) -> dict[str, list[str]]:
    """What the classes of these names can be made with, their inputs and outputs too: "io.Int.Input"."""
    import inspect

    found = {}
    for name in wanted:
        thing = {"io": io, "ui": ui}[name.split(".")[0]]
        for part in name.split(".")[1:]:
            thing = getattr(thing, part)
        if isinstance(thing, type) and not issubclass(thing, str):
            found[name] = list(inspect.signature(thing.__init__).parameters)
    return found


def test_the_shim_has_no_name_and_no_argument_that_comfyui_lacks(real_python: Callable[[str], str]) -> None:
    from comfy_api.latest import io, ui

    assert "shim" in str(io.__file__)
    wanted = []
    for module, api in (("io", io), ("ui", ui)):
        own = [name for name, one in vars(api).items() if "comfy_api" in str(getattr(one, "__module__", ""))]
        wanted += [
            f"{module}.{name}" for name in own if not name.startswith("_") and name not in {"ComfyType", "unknown"}
        ]
    wanted += [f"io.{name}.{side}" for name in TYPES for side in ("Input", "Output")]
    wanted += ["io.Autogrow.Input", "io.Autogrow.TemplatePrefix"]
    mine = arguments(io, ui, wanted)
    assert len(mine) > 30
    script = "\n".join(
        [
            "import json, kontext_bridge.headless",
            "from typing import Any",
            "from comfy_api.latest import io, ui",
            inspect.getsource(arguments),
            f"print(json.dumps(arguments(io, ui, {wanted!r})))",
        ]
    )
    theirs = json.loads(real_python(script))
    lacking = {name: set(mine[name]) - set(theirs[name]) - {"args", "kwargs", "_"} for name in mine}
    assert {name: options for name, options in lacking.items() if options} == {}


def test_a_headless_run_with_comfyuis_own_api_makes_the_same_of_a_workflow(
    tmp_path: Path, real_python: Callable[[str], str]
) -> None:
    script = f"""
import json, sys
sys.path[:0] = [{str(REPOSITORY / "tests" / "headless")!r}]
import kontext_bridge.headless
from pathlib import Path
from cases import RUNS, node
from kontext_bridge.headless.folders import RunFolders
from kontext_bridge.headless.run import run_workflow
import sample_pack
folders = RunFolders(Path({str(tmp_path)!r}), Path({str(tmp_path / "out")!r}))
for name, (workflow, texts) in RUNS.items():
    result = run_workflow(workflow, sample_pack.NODES, folders)
    assert {{id: one.ui["text"] for id, one in result.nodes.items() if "text" in one.ui}} == texts, name
picture = node("EmptyImage", width=4, height=4, batch_size=1, color=255)
saved = run_workflow({{"1": picture, "2": node("SaveImage", images=["1", 0], filename_prefix="x")}}, [], folders)
print(saved.nodes["2"].files[0])
"""
    assert Path(real_python(script).strip()).parent == tmp_path / "out"
