"""A run whose terminal is narrow, closed or gone still saves what was paid for, and says what it can."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cases import node
from kontext_bridge.commands.console import open_console, say, tell
from kontext_bridge.headless.__main__ import main
from kontext_bridge.headless.told import TerminalReport
from kontext_bridge.standin import StandIn, Timing

LIMIT_S = 240
NARROW = {
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "ascii": {"PYTHONIOENCODING": "ascii:strict"},
    "C": {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
PROMPT = "gib dem Ochsen 🐂 einen Hut → “rot”"


@pytest.fixture
def service() -> Iterator[StandIn]:
    with StandIn(timing=Timing(0.02, 0.05)) as service:
        yield service


@pytest.fixture
def here(service: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """This process as a command's: the service and a home of its own."""
    for name, value in environment(service, tmp_path).items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def workflow(prefix: str = "edit") -> dict[str, Any]:
    return {
        "1": node("EmptyImage", width=16, height=16, batch_size=1, color=0xFF0000),
        "2": node("KontextEdit", **edit_inputs()),
        "3": node("SaveImage", images=["2", 0], filename_prefix=prefix),
        "4": node("KontextHistory", pick=1, search="", count=20),
    }


def edit_inputs() -> dict[str, Any]:
    inputs: dict[str, Any] = {"image": ["1", 0], "prompt": PROMPT, "seed": 5, "steps": 28, "guidance": 2.5}
    inputs |= {"aspect_ratio": "match_input_image", "variations": 1, "output_format": "png", "output_quality": 95}
    inputs |= {"disable_safety_checker": False, "send_as": "auto", "timeout": 60, "namespace": ""}
    return inputs | {"wait": "polling", "result": "reuse", "if_some_fail": "stop with the error"}


def command(folder: Path, document: dict[str, Any], *options: str) -> list[str]:
    path = folder / "workflow.json"
    path.write_text(json.dumps(document))
    return [sys.executable, "-m", "kontext_bridge.headless", str(path), *options]


def environment(service: StandIn, folder: Path, **more: str) -> dict[str, str]:
    variables = {"OXEN_API_KEY": service.key, "OXEN_BASE_URL": service.url, "KONTEXT_BRIDGE_HOME": str(folder / "home")}
    return {**os.environ, "OMP_NUM_THREADS": "1", **variables, **more}


@pytest.mark.parametrize("console", NARROW)
def test_a_console_that_lacks_a_character_loses_no_picture_and_no_line(
    console: str, service: StandIn, tmp_path: Path
) -> None:
    out = tmp_path / "Büldér 🐂"
    for options in (("--debug",), ("--json",)):
        done = subprocess.run(
            command(tmp_path, workflow(), "--output", str(out), *options),
            env=environment(service, tmp_path, **NARROW[console]),
            capture_output=True,
            timeout=LIMIT_S,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert b"Traceback" not in done.stderr and b"Logging error" not in done.stderr, done.stderr[-2000:]
        if options == ("--json",):
            told = json.loads(done.stdout)["nodes"]
            assert PROMPT[:30] in told["4"]["ui_text"][0]
            assert all(Path(file).is_file() for file in told["3"]["files"])
        else:
            assert b"edit_0000" in done.stdout and (b"\\U0001f402" in done.stdout or b"\\udcf0" in done.stdout)
    assert len(service.billed) == 1
    assert len(list(out.glob("edit_*.png"))) == 2


def test_a_prompt_typed_where_the_locale_is_ascii_arrives_as_typed(service: StandIn, tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path, workflow(), "--output", str(tmp_path / "out"), "--set", f"2.prompt={PROMPT} é"),
        env=environment(service, tmp_path, **NARROW["C"]),
        capture_output=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert [job.params["prompt"] for job in service.jobs.values()] == [f"{PROMPT} é"]


@pytest.mark.parametrize("closed", ["stdout", "both"])
def test_a_reader_that_went_away_loses_no_picture(closed: str, service: StandIn, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)  # as head does once it has read enough
    streams = {name: writing if closed in (name, "both") else subprocess.PIPE for name in ("stdout", "stderr")}
    with subprocess.Popen(
        command(tmp_path, workflow(), "--output", str(tmp_path / "out"), "--debug"),
        env=environment(service, tmp_path),
        **streams,
    ) as run:
        os.close(writing)
        _, err = run.communicate(timeout=LIMIT_S)
    assert run.returncode == 0, err
    assert not err or (b"Traceback" not in err and b"Exception ignored" not in err)
    assert len(service.billed) == 1 and len(list((tmp_path / "out").glob("edit_*.png"))) == 1


def test_streams_that_were_closed_before_the_run_lose_no_picture(service: StandIn, tmp_path: Path) -> None:
    words = command(tmp_path, workflow(), "--output", str(tmp_path / "out"), "--json")
    done = subprocess.run(
        ["sh", "-c", '"$@" >&- 2>&-', "sh", *words], env=environment(service, tmp_path), timeout=LIMIT_S
    )
    assert done.returncode == 0
    assert len(list((tmp_path / "out").glob("edit_*.png"))) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is Linux's")
def test_a_result_that_cannot_be_written_is_told_and_the_picture_is_there(service: StandIn, tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command(tmp_path, workflow(), "--output", str(tmp_path / "out"), "--json"),
            env=environment(service, tmp_path),
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=LIMIT_S,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == b"The result could not be printed: No space left on device."
    assert len(list((tmp_path / "out").glob("edit_*.png"))) == 1


@pytest.mark.parametrize("console", ["ascii"])
def test_the_demo_the_stand_in_and_the_local_command_print_on_any_console(console: str, tmp_path: Path) -> None:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("OXEN_")}
    for words, status in (
        (["headless.demo"], 0),
        (["standin", "--list-faults"], 0),
        (["edit", "missing 🐂.png", PROMPT, "-o", "out.png"], 1),
        (["headless", "missing 🐂.json"], 1),
        (["headless", "--object-info"], 0),
    ):
        done = subprocess.run(
            [sys.executable, "-m", f"kontext_bridge.{words[0]}", *words[1:]],
            env={**variables, **NARROW[console], "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
            cwd=tmp_path,
            capture_output=True,
            timeout=LIMIT_S,
        )
        assert done.returncode == status and b"Traceback" not in done.stderr, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("nul\0", "holds a NUL"),
        ("half \ud83d", "a character that this machine's file names cannot have"),
        ("long" * 100, "400 bytes long"),
    ],
)
def test_a_file_name_that_cannot_be_is_refused_before_anything_is_paid(
    prefix: str,
    message: str,
    service: StandIn,
    here: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(command(tmp_path, workflow(prefix), "--output", str(tmp_path / "out"))[3:]) == 1
    assert message in capsys.readouterr().err
    assert service.requests == []


def test_an_output_folder_that_cannot_be_is_refused_before_anything_is_paid(
    service: StandIn, here: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(command(tmp_path, workflow(), "--output", str(tmp_path / "file" / "out"))[3:]) == 1
    err = capsys.readouterr().err
    assert "is no folder" in err and "--output" in err
    assert service.requests == []


@pytest.mark.parametrize(
    ("name", "words"),
    [("", "is empty"), ("x" * 300, "too long"), ("y/" * 2100, "too long"), ("a\0", "NUL")],
    ids=["empty", "long", "long in all", "NUL"],
)
def test_a_name_that_names_no_file_is_refused_before_anything_is_paid(
    name: str,
    words: str,
    service: StandIn,
    here: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(command(tmp_path, workflow(), "--output", name)[3:]) == 1
    said = capsys.readouterr().err
    assert words in said and "--output" in said and "Errno" not in said
    assert main([name]) == 1
    assert words in capsys.readouterr().err
    assert main([str(tmp_path)]) == 1
    assert "is a folder" in capsys.readouterr().err
    assert service.requests == []


TAKEN_AWAY = """
import shutil, sys
from pathlib import Path
from kontext_bridge.headless import __main__ as cli
from kontext_bridge.headless.__main__ import main
from kontext_bridge.headless.told import TerminalReport

out, put = Path(sys.argv[3]), sys.argv[4]

def finished(report, node_id, seconds, before=TerminalReport.finished):
    before(report, node_id, seconds)
    if node_id == "2":
        shutil.rmtree(out)
        if put == "file":
            out.write_text("in the way")

TerminalReport.finished = finished
sys.exit(cli.main(sys.argv[1:4]))
"""


@pytest.mark.parametrize("put", ["nothing", "file"])
def test_an_output_folder_that_vanishes_while_the_edit_runs(put: str, service: StandIn, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = command(tmp_path, workflow(), "--output", str(out))[3:]
    for _ in range(2 if put == "file" else 1):
        out.unlink(missing_ok=True)
        out.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", TAKEN_AWAY, *words, put],
            env=environment(service, tmp_path),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
    if put == "file":
        assert done.returncode == 1 and "What was paid for is kept" in done.stderr and "Traceback" not in done.stderr
        out.unlink()
        again = command(tmp_path, workflow(), "--output", str(out))
        assert subprocess.run(again, env=environment(service, tmp_path), timeout=LIMIT_S).returncode == 0
    else:
        assert done.returncode == 0, done.stderr
    assert [file.name for file in out.iterdir()] == ["edit_00001_.png"]
    assert len(service.billed) == 1


def test_a_folder_whose_links_lead_in_a_circle_is_told_in_words(
    service: StandIn, here: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert main(command(tmp_path, workflow(), "--output", str(tmp_path / "loop"))[3:]) == 1
    assert "loop" in capsys.readouterr().err
    assert service.requests == []


def test_a_workflow_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "workflow.json"
    document = {"1": node("EmptyImage", width=4, height=2, batch_size=1, color=0)}
    document["2"] = node("SaveImage", images=["1", 0], filename_prefix="edit")
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(document).encode())
    assert main([str(path), "--output", str(tmp_path / "out")]) == 0


class Broken:
    """A stream that takes nothing."""

    encoding = "utf-8"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> int:
        raise self.error

    def flush(self) -> None: ...

    def fileno(self) -> int:
        raise OSError("no number")


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), OSError(5, "I/O error"), ValueError("closed")])
def test_a_report_to_a_broken_stream_lets_the_run_go_on(error: Exception) -> None:
    report = TerminalReport(Broken(error))  # type: ignore[arg-type]
    report.started("1", "A")
    report.progress("1", 1, 2)
    report.text("1", "x")
    report.finished("1", 1.0)
    report.close()


def test_a_stream_that_can_only_refuse_a_character_gets_its_escape(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Narrow:
        def __init__(self) -> None:
            self.text = ""

        def write(self, text: str) -> int:
            self.text += text.encode("ascii").decode()
            return len(text)

        def flush(self) -> None: ...

    narrow = Narrow()
    assert say("🐂", narrow) is None  # type: ignore[arg-type]
    assert narrow.text == "\\U0001f402\n"
    monkeypatch.setattr(sys, "stdout", narrow)
    open_console()
    assert tell("ü")
    assert narrow.text.endswith("\\xfc\n")


def test_a_stream_of_anothers_own_making_that_fails_ends_no_run() -> None:
    class Broken:
        def write(self, text: str) -> None:
            raise OSError(5, "Input/output error")

    assert isinstance(say("a picture", Broken()), OSError)  # type: ignore[arg-type]
