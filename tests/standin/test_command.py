"""`python -m kontext_bridge.standin`, from another process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import requests
from kontext_bridge.standin import Fault, faults
from kontext_bridge.standin.faults import Trips
from patience import PATIENCE

from .conftest import data_uri

COMMAND = [sys.executable, "-m", "kontext_bridge.standin"]
KEY = "a-key-that-must-not-show"
AUTH = {"Authorization": f"Bearer {KEY}"}


@contextmanager
def running(*options):
    process = subprocess.Popen(
        [*COMMAND, "--key", KEY, "--queued", "0", "--processing", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            first, *usage = (process.stdout.readline() for _ in range(3))
            assert [line.partition("=")[0] for line in usage] == ["export OXEN_BASE_URL", "export OXEN_API_KEY"]
            yield process, first, re.search(r"http://[\d.:]+", first)[0]
        finally:
            process.kill()


def edit(url, **changes):
    body = {"model": "flux-kontext-dev", "prompt": "a hat", "input_image": data_uri(), "output_format": "jpg"}
    return requests.post(f"{url}/api/ai/images/edit", json=body | changes, headers=AUTH, timeout=PATIENCE)


def written(path):
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return json.loads(path.read_text())


def test_it_says_where_it_is_and_what_it_is_not_and_writes_its_state(tmp_path):
    file = tmp_path / "state.json"
    with running("--state", str(file), "--fault", "rate_limited*1=2") as (process, first, url):
        assert first.startswith(f"Stand-in for Oxen.ai at {url} (not Kontext:")
        assert edit(url).headers["Retry-After"] == "2"
        requests.get(edit(url).json()["images"][0]["url"], timeout=PATIENCE)
        process.send_signal(signal.SIGUSR1)
        state = written(file)
        assert [bill["what"] for bill in state["billed"]] == state["delivered"] == ["sync-1"]
        assert state["by_route"] == {"edit": 2, "result": 1}
        file.unlink()
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert written(file)["shown"] == {"rate_limited": 1}
    assert KEY not in first + output + file.read_text()
    assert output == ""


def test_the_lines_that_it_prints_make_a_client_use_it():
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True) as process:
        try:
            lines = [process.stdout.readline() for _ in range(3)]
        finally:
            process.kill()
    url = re.search(r"http://[\d.:]+", lines[0])[0]
    assert lines[1:] == [f"export OXEN_BASE_URL={url}\n", "export OXEN_API_KEY=standin-key\n"]


def test_another_process_can_set_faults_and_steer_jobs():
    with running() as (_, _, url):

        def control(path, body):
            return requests.post(f"{url}/_standin/{path}", json=body, timeout=PATIENCE)

        state = control("faults", {"out_of_credits": {"times": 1}}).json()
        assert state["requests"] == 0
        assert [edit(url).status_code for _ in range(2)] == [402, 200]
        assert control("faults", {"nonsense": True}).status_code == 400
        assert control("faults", {"rate_limited": [1]}).status_code == 400
        assert control("faults", {"rate_limited": {"often": 1}}).status_code == 400
        assert control("steer", {"hold": "processing"}).ok
        body = {"model": "flux-kontext-dev", "prompt": "", "input_image": data_uri()}
        reply = requests.post(f"{url}/api/ai/queue", json=body, headers=AUTH, timeout=PATIENCE)
        job = reply.json()["generations"][0]["generation_id"]
        state = control("steer", {"fail": {"id": job, "message": "no"}}).json()
        assert state["jobs"][job] == "failed"
        assert control("steer", {"finish": "unknown"}).status_code == 400
        assert control("steer", {"jump": 1}).status_code == 400
        assert control("steer", {"release": True, "emit": "x"}).ok
        assert requests.get(f"{url}/_standin/state", timeout=PATIENCE).json()["connections"] == 3


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT to a child there")
def test_interrupting_it_with_open_streams_ends_it_quietly():
    with running() as (process, _, url):
        stream = requests.get(f"{url}/api/events", headers=AUTH, stream=True, timeout=PATIENCE)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=PATIENCE)
        stream.close()
    assert (process.returncode, output) == (0, "")


def test_edits_that_are_only_tinted_although_painting_was_asked_for_are_noticed():
    body = {"prompt": "make it night", "output_format": "png", "num_inference_steps": 4}
    with running("--paint") as (_, first, url):
        assert "the small demo model paints" in first and "tints" not in first
        painted = edit(url, **body)
        picture = requests.get(painted.json()["images"][0]["url"], timeout=PATIENCE).content
    with running() as (_, first, url):
        assert "only tints" in first and "demo model" not in first
        tinted = requests.get(edit(url, **body).json()["images"][0]["url"], timeout=PATIENCE).content
    assert picture != tinted


def test_painting_without_what_it_takes_is_refused_at_the_start_and_not_by_the_first_edit():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from kontext_bridge.standin.__main__ import main\n"
        "sys.exit(main(['--paint']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Nothing can be painted. torch is not installed.\n"


def test_every_switch_is_listed():
    output = subprocess.run([*COMMAND, "--list-faults"], capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in output.splitlines()] == list(faults.NAMES)


def test_a_misspelt_fault_is_refused_on_the_command_line():
    done = subprocess.run([*COMMAND, "--fault", "rate_limit"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "'rate_limit' is no fault" in done.stderr


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("stuck", Fault()),
        ("rate_limited=2", Fault(2)),
        ("answer_delayed=0.5", Fault(0.5)),
        ("run_fails*2+1=a=b c*3", Fault("a=b c*3", times=2, after=1)),
        ("rate_limited=date:2", Fault("date:2")),
        ("poll_unauthorized+3", Fault(after=3)),
    ],
)
def test_a_fault_is_read_as_it_is_spelt(text, fault):
    assert faults.parse(text) == (re.match(r"\w+", text)[0], fault)


@pytest.mark.parametrize("text", ["", "=1", "stuck*", "stuck*x", "unknown=1", "stuck +1"])
def test_a_fault_spelt_wrong_is_named(text):
    with pytest.raises(ValueError, match="is no fault"):
        faults.parse(text)


def test_uses_are_counted_after_the_good_ones_and_start_again_when_set():
    trips = Trips(faults.Faults(stuck=Fault(times=2, after=1)))
    assert [trips.take("stuck") is not None for _ in range(5)] == [False, True, True, False, False]
    trips.set({"stuck": Fault(times=1)})
    assert [trips.take("stuck") is not None for _ in range(2)] == [True, False]
    trips.set({"stuck": None})
    assert trips.take("stuck") is None
