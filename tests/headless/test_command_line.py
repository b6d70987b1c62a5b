from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alone import succeeds_alone
from cases import node
from kontext_bridge.headless.__main__ import PYTHON_MODULE, main
from patience import PATIENCE
from PIL import Image

PICTURE = node("EmptyImage", width=4, height=2, batch_size=1, color=255)
SAVE = node("SaveImage", images=["1", 0], filename_prefix="edit")


@pytest.fixture
def workflow(tmp_path: Path) -> Path:
    return written(tmp_path, {"1": PICTURE, "2": SAVE})


def written(folder: Path, document: dict[str, Any]) -> Path:
    path = folder / "workflow.json"
    path.write_text(json.dumps(document))
    return path


def test_a_run_prints_the_files_it_saved(workflow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(workflow), "--output", str(tmp_path / "out")]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert Path(line) == tmp_path / "out" / "edit_00001_.png" and Path(line).is_file()


def test_json_gives_each_nodes_texts_files_and_seconds(
    workflow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(workflow), "--output", str(tmp_path / "out"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["nodes"]["2"]["files"] == [str(tmp_path / "out" / "edit_00001_.png")]
    assert set(told["nodes"]["1"]) == {"class_type", "seconds", "texts", "ui_text", "files"}
    assert told["nodes"]["1"]["seconds"] >= 0 and told["seconds"] >= 0


def test_settings_change_the_run_and_the_workflow_in_the_picture(workflow: Path, tmp_path: Path) -> None:
    settings = ["--set", "1.width=7", "--set", "2.filename_prefix=1e3"]
    assert main([str(workflow), "--output", str(tmp_path / "out"), *settings]) == 0
    with Image.open(tmp_path / "out" / "1e3_00001_.png") as saved:
        assert saved.size == (7, 2)
        assert json.loads(saved.info["prompt"])["1"]["inputs"]["width"] == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--set", "9.width=7"], "the workflow has no node 9"),
        (["--set", "1.size=7"], "EmptyImage has no input size. It has: width, height, batch_size, color."),
        (["--set", "1.width=0"], "Node 1 (EmptyImage): width: 0 is below the least allowed, 1."),
        (["--set", "2.filename_prefix=../x"], "Node 2 (SaveImage): The file name prefix"),
    ],
)
def test_a_failure_is_one_line_on_stderr_and_status_one(
    changes: list[str], message: str, workflow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(workflow), "--output", str(tmp_path / "out"), "--json", *changes]) == 1
    told = capsys.readouterr()
    assert told.out == "" and "Traceback" not in told.err
    assert message in told.err.splitlines()[-1]


def test_debug_shows_where_a_failure_came_from(
    workflow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = ["--set", "2.filename_prefix=../x"]
    assert main([str(workflow), "--output", str(tmp_path / "out"), "--debug", *prefix]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_editor_workflow_is_refused_with_the_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(written(tmp_path, {"nodes": [], "links": []}))]) == 1
    assert "File > Export (API)" in capsys.readouterr().err


def test_a_choice_where_there_is_none_to_choose_from_is_refused_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = node("KontextLoRA", model=["1", 0], file="a.safetensors", strength=1.0)
    edit = node("KontextEditLocal", model=["2", 0], image=["3", 0], prompt="x")
    workflow = {"1": node("KontextLoadDemo"), "2": chosen, "3": PICTURE, "4": edit, "5": {**SAVE}}
    workflow["5"]["inputs"] = {"images": ["4", 0], "filename_prefix": "edit"}
    assert main([str(written(tmp_path, workflow))]) == 1
    said = "file: 'a.safetensors' is none of those that can be chosen here: there are none."
    assert said in capsys.readouterr().err


def test_object_info_describes_the_nodes_of_the_pack_and_no_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--object-info"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info and all(id.startswith(("Kontext", "Oxen")) for id in info)
    assert {one["python_module"] for one in info.values()} == {PYTHON_MODULE}


def test_the_module_runs_from_a_shell(workflow: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kontext_bridge.headless", workflow, "--output", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE)
    assert (done.returncode, done.stderr.splitlines()[-1][:11]) == (0, "2 SaveImage")
    assert Path(done.stdout.strip()).is_file()


def test_what_runs_no_node_waits_for_no_torch(tmp_path: Path) -> None:
    refused = written(tmp_path, {"1": {**PICTURE, "inputs": {**PICTURE["inputs"], "width": 0}}, "2": SAVE})
    succeeds_alone(
        "import sys; from kontext_bridge.headless.__main__ import main;"
        f"statuses = main(['--object-info']), main([{str(refused)!r}]), main([{str(tmp_path / 'none.json')!r}]);"
        "heavy = {'torch', 'numpy', 'PIL', 'requests', 'aiohttp'} & set(sys.modules);"
        "sys.exit(0 if statuses == (0, 1, 1) and not heavy else repr((statuses, heavy)))"
    )


WAITING = """
import asyncio, sys
from pathlib import Path
from kontext_bridge.headless import __main__ as cli
from comfy_api.latest import io

class Wait(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="Wait", is_output_node=True, outputs=[io.String.Output()])

    @classmethod
    async def execute(cls):
        from kontext_bridge import host
        print("waiting", flush=True)
        try:
            while True:
                await asyncio.sleep(0.01)
                if host.interrupted() and sys.argv[2] == "heeds":
                    raise host.interruption()
        finally:
            print("cancelled the job", flush=True)

async def only_wait():
    return [Wait]

cli.pack_nodes = only_wait
sys.exit(cli.main([sys.argv[1]]))
"""


def waiting(tmp_path: Path, manner: str) -> subprocess.Popen[str]:
    path = written(tmp_path, {"1": node("Wait")})
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, str(path), manner],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None and process.stdout.readline() == "waiting\n"
    return process


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_node_cancel_its_job_and_ends_the_run(sent: signal.Signals, tmp_path: Path) -> None:
    process = waiting(tmp_path, "heeds")
    process.send_signal(sent)
    out, err = process.communicate(timeout=2 * PATIENCE)
    assert (process.returncode, out) == (1, "cancelled the job\n")
    assert err.splitlines()[-1] == "Interrupted in node 1 (Wait)."


def test_a_second_signal_kills_a_node_that_does_not_heed_the_first(tmp_path: Path) -> None:
    process = waiting(tmp_path, "ignores")
    process.send_signal(signal.SIGINT)
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
    out, _ = process.communicate(timeout=2 * PATIENCE)
    assert (process.returncode, out) == (-signal.SIGINT, "")


@pytest.mark.parametrize("option", ["--output", "--set"])
def test_two_dashes_as_a_value_are_refused_in_words(
    option: str, workflow: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(workflow), f"{option}=--"])
    assert ended.value.code == 2 and "error: " in capsys.readouterr().err
