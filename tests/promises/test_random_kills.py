"""`kill -9` at ten random moments of a run: the next run delivers every picture, and each is on the bill once."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comfy_server import REPOSITORY, ComfyServer, comfy_server_with
from kontext_bridge.oxen.choices import WaitMode
from kontext_bridge.standin import Fault, Faults, StandIn, Timing
from matrix_runner import KEY, Lane, Run, files_with_a_piece
from PIL import Image

KILLS = 10
RUN_SECONDS = 2.4  # from the first request to the picture, by the stand-in's timing
TIMING = Timing(queued_s=0.5, processing_s=1.4)
SIZE = 24
LIMIT_SECONDS = 300
Workflow = dict[str, Any]


def moments(seed: int) -> list[float]:
    """Ten random moments of a run, in seconds after its first request, each in a tenth of its length of its own."""
    rng = random.Random(seed)
    times = [(number + rng.random()) * RUN_SECONDS / KILLS for number in range(KILLS)]
    rng.shuffle(times)
    return times


def edits(*numbers: int, anew: Iterable[int] = ()) -> Workflow:
    """A workflow with some of ten edits, which differ in their seed and wait in different ways.

    anew: those that are made and paid for whatever became of them before.
    """
    workflow: Workflow = {"load": {"class_type": "LoadImage", "inputs": {"image": "source.png"}}}
    for number in numbers:
        inputs = {"image": ["load", 0], "prompt": "make it blue", "seed": number, "steps": 28, "guidance": 2.5}
        inputs |= {"aspect_ratio": "match_input_image", "variations": 1, "output_format": "png", "output_quality": 95}
        inputs |= {"disable_safety_checker": False, "send_as": "auto", "timeout": 180, "namespace": ""}
        inputs |= {"wait": list(WaitMode)[number % len(WaitMode)].value}
        inputs |= {"result": "always new" if number in anew else "reuse", "if_some_fail": "stop with the error"}
        workflow[f"edit{number}"] = {"class_type": "KontextEdit", "inputs": inputs}
        save = {"images": [f"edit{number}", 0], "filename_prefix": f"edit{number}"}
        workflow[f"save{number}"] = {"class_type": "SaveImage", "inputs": save}
    return workflow


def write_source(path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def variables(service: StandIn, home: Path) -> dict[str, str]:
    return {"OXEN_API_KEY": KEY, "OXEN_BASE_URL": service.url, "KONTEXT_BRIDGE_HOME": str(home)}


def wait_and_kill(service: StandIn, seen: int, seconds: float, kill: Callable[[], None]) -> None:
    """Kill a run so many seconds after the service has its first request."""
    service.wait_for(lambda s: len(s.requests) > seen, timeout=LIMIT_SECONDS)
    time.sleep(seconds)
    kill()


def assert_all_delivered_and_billed_once(service: StandIn, output: Path) -> None:
    """Every picture is there, whole, as the service made it; more than once where a run ended before its kill."""
    jobs = {job.params["seed"]: job for job in service.jobs.values()}
    assert sorted(job.params["seed"] for job in service.jobs.values()) == list(range(KILLS))
    assert len(service.billed) == KILLS
    assert service.delivered == {bill.what for bill in service.billed}
    for number in range(KILLS):
        result = jobs[number].result
        assert result is not None
        saved = sorted(output.glob(f"edit{number}_*.png"))
        assert saved, f"no picture of edit {number}"
        for path in saved:
            with Image.open(path) as picture, Image.open(io.BytesIO(result)) as made:
                assert np.array_equal(np.asarray(picture.convert("RGB")), np.asarray(made.convert("RGB"))), path


def test_a_headless_run_killed_at_ten_moments_is_billed_once_and_delivers_in_the_next(
    tmp_path: Path, tables: dict[str, list[str]]
) -> None:
    write_source(tmp_path / "source.png")

    def start(service: StandIn, name: str, *numbers: int, anew: Iterable[int] = ()) -> Run:
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(edits(*numbers, anew=anew)))
        arguments = [str(path), "--output", str(tmp_path / "out"), "--debug"]
        environment, log = variables(service, tmp_path / "home"), str(tmp_path / f"{name}.log")
        return lane.start({"arguments": arguments, "environment": environment, "log": log})

    killed = []
    with closing(Lane("headless_worker.py")) as lane, StandIn(timing=TIMING, key=KEY) as service:
        for number, seconds in enumerate(moments(3)):
            seen, billed = len(service.requests), len(service.billed)
            run = start(service, f"killed{number}", number)
            wait_and_kill(service, seen, seconds, lambda run=run: run.send(signal.SIGKILL))
            assert run.wait(LIMIT_SECONDS)
            last = service.requests[-1].route
            killed.append(f"{seconds:5.2f} s   billed {len(service.billed) - billed}   last request: {last}")
            assert run.status in (-signal.SIGKILL, 0)
        run = start(service, "after", *range(KILLS))
        assert run.wait(LIMIT_SECONDS)
        if run.status:
            # Killed between its note that it sends and the sending: nobody can know, so the artist is asked.
            log = (tmp_path / "after.log").read_text()
            assert "not known whether it was taken" in log, log[-2000:]
            unseen = set(range(KILLS)) - {job.params["seed"] for job in service.jobs.values()}
            run = start(service, "anew", *range(KILLS), anew=unseen)
            assert run.wait(LIMIT_SECONDS) and run.status == 0, (tmp_path / "anew.log").read_text()[-2000:]
        assert_all_delivered_and_billed_once(service, tmp_path / "out")
        assert not service.leaks
        killed.append(f"next run: {KILLS} pictures, {len(service.billed)} bills")
    tables["headless runs killed at ten random moments"] = killed
    assert not files_with_a_piece(tmp_path)


def test_a_headless_run_through_faults_delivers_and_is_billed_once(tmp_path: Path) -> None:
    write_source(tmp_path / "source.png")
    (tmp_path / "workflow.json").write_text(json.dumps(edits(0, 1, 2)))
    faults = Faults(
        answer_dropped=Fault(times=2),
        poll_error=Fault(times=2),
        events_cut=True,
        result_truncated=Fault(times=1),
        result_needs_bearer=True,
    )
    command = [sys.executable, "-m", "kontext_bridge.headless", tmp_path / "workflow.json", "--debug"]
    with StandIn(faults, Timing(0.1, 0.3), key=KEY) as service, (tmp_path / "log").open("wb") as log:
        environment = {**os.environ, **variables(service, tmp_path / "home"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run([*command, "--output", tmp_path / "out"], env=environment, stdout=log, stderr=log)
        assert done.returncode == 0, (tmp_path / "log").read_text()[-2000:]
        assert len(service.billed) == 3
        assert service.delivered == {bill.what for bill in service.billed}
        assert service.shown["answer_dropped"] == 2 and service.shown["result_truncated"] == 1
        assert not service.leaks
    assert len(list((tmp_path / "out").glob("edit*.png"))) == 3
    assert not files_with_a_piece(tmp_path)


@pytest.mark.comfyui
def test_comfyui_killed_at_ten_moments_is_billed_once_and_delivers_in_the_next(
    tmp_path: Path, tables: dict[str, list[str]]
) -> None:
    killed = []
    with StandIn(timing=TIMING, key=KEY) as service:
        for number, seconds in enumerate(moments(4)):
            with killable_comfyui(tmp_path / f"killed{number}", service) as server:
                seen, billed = len(service.requests), len(service.billed)
                server.submit(edits(number))
                wait_and_kill(service, seen, seconds, server.process.kill)
                server.process.wait()
            last = service.requests[-1].route
            killed.append(f"{seconds:5.2f} s   billed {len(service.billed) - billed}   last request: {last}")
        with killable_comfyui(tmp_path / "after", service) as server:
            entry = server.run(edits(*range(KILLS)))
            assert entry["status"]["status_str"] == "success", entry["status"]
            assert KEY[:12] not in json.dumps(entry)
        assert_all_delivered_and_billed_once(service, tmp_path / "after" / "output")
        assert not service.leaks
        killed.append(f"next run: {KILLS} pictures, {len(service.billed)} bills")
    tables["ComfyUI killed at ten random moments"] = killed
    assert not files_with_a_piece(tmp_path)


@contextmanager
def killable_comfyui(base: Path, service: StandIn) -> Iterator[ComfyServer]:
    """A ComfyUI with this pack and the source picture, on the account and ledger of all runs beside `base`."""
    environment = {**variables(service, base.parent / "home"), "OMP_NUM_THREADS": "1"}
    with comfy_server_with({"kontext-bridge": REPOSITORY}, base, environment) as server:
        write_source(base / "input" / "source.png")
        yield server
