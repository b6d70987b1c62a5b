"""The requests of the service's own examples for Kontext, with nothing but the host replaced.

The pages themselves are not ours to give out: where a folder of them is at hand, their code is run as it stands.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import requests
from kontext_bridge.standin import Timing
from patience import PATIENCE
from PIL import Image

HOST = "https://hub.oxen.ai"
PICTURES = (
    f"{HOST}/api/repos/elau/assets/file/main/bloxy/bloxy_cropped_512x512.png",
    f"{HOST}/api/repos/ox/Oxen-Character-Simple-Vector-Graphic/file/main/images/reference/bloxy_white_bg.png",
)
MINIMAL = {"model": "flux-kontext-dev", "prompt": "<prompt>", "input_image": PICTURES[0]}
ALL = MINIMAL | {
    "aspect_ratio": "16:9",
    "num_inference_steps": 28,
    "guidance": 2.5,
    "output_format": "webp",
    "output_quality": 80,
    "disable_safety_checker": False,
}
PAGES = "OXEN_EXAMPLE_PAGES"
_BLOCK = re.compile(r"^( *)```(bash|python)[^\n]*\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def here(api: Any, body: dict[str, Any]) -> str:
    """The body with the host replaced, as it would be in a text."""
    return json.dumps(body).replace(HOST, api.server.url)


def is_wide_webp(address: str) -> bool:
    with Image.open(io.BytesIO(requests.get(address, timeout=PATIENCE).content)) as picture:
        return bool(picture.format == "WEBP" and picture.width > picture.height)


@pytest.mark.parametrize(
    "body", [MINIMAL, ALL, MINIMAL | {"input_image": PICTURES[1]}], ids=["minimal", "all", "older"]
)
def test_a_blocking_example_gets_its_picture(api: Any, body: dict[str, Any]) -> None:
    headers = {"Content-Type": "application/json"}
    reply = api.call("POST", "/api/ai/images/edit", data=here(api, body), headers=headers)
    assert reply.status_code == 200, reply.text
    assert is_wide_webp(reply.json()["images"][0]["url"])


@pytest.mark.parametrize("body", [MINIMAL, ALL], ids=["minimal", "all"])
def test_an_example_of_the_queue_gets_its_picture_also_where_its_picture_is_left_at_the_services_host(
    api: Any, body: dict[str, Any]
) -> None:
    for text in (here(api, body), json.dumps(body)):
        reply = api.call("POST", "/api/ai/queue", data=text, headers={"Content-Type": "application/json"})
        row = api.ended(reply.json()["generations"][0]["generation_id"])
        assert row["status"] == "succeeded" and is_wide_webp(row["result_url"]), row["error_message"]


def test_an_example_that_listens_after_it_has_asked_hears_of_its_picture(serve: Any) -> None:
    api = serve(timing=Timing(queued_s=0.01, processing_s=0.5))
    generation = api.submit(**json.loads(here(api, MINIMAL)))
    with api.call("GET", "/api/events", stream=True) as stream:
        lines = stream.iter_lines(decode_unicode=True)
        event = next(line for line in lines if line.startswith("event: media_generation_completed"))
        told = json.loads(next(lines).removeprefix("data: "))
    assert event and told["generation_id"] == generation and told["status"] == "succeeded"


def test_the_picture_of_the_examples_is_there_for_anyone_and_the_rest_of_that_account_is_not(api: Any) -> None:
    for address in PICTURES:
        reply = requests.get(address.replace(HOST, api.server.url), timeout=PATIENCE)
        with Image.open(io.BytesIO(reply.content)) as picture:
            assert reply.headers["Content-Type"] == "image/png" and picture.size == (512, 512)
    for other in ("elau/private/file/main/a.png", "elau/assets/file/main/notes.txt"):
        assert requests.get(f"{api.server.url}/api/repos/{other}", timeout=PATIENCE).status_code == 404
        assert api.edit(input_image=f"{HOST}/api/repos/{other}").status_code == 400


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_curl_gets_a_picture_as_the_examples_call_it(api: Any) -> None:
    said = ["curl", "-s", "-X", "POST", f"{api.server.url}/api/ai/images/edit", "-d", here(api, ALL)]
    headers = ["-H", "Content-Type: application/json", "-H", f"Authorization: Bearer {api.server.key}"]
    told = json.loads(subprocess.run([*said, *headers], capture_output=True, check=True, timeout=PATIENCE).stdout)
    assert is_wide_webp(told["images"][0]["url"])


def test_the_code_of_the_services_own_pages_runs_as_it_stands(serve: Any, tmp_path: Path) -> None:
    folder = os.environ.get(PAGES)
    if not folder:
        pytest.skip(f"needs the pages of flux-kontext-dev, in however many versions: set {PAGES} to a folder of .mdx")
    api = serve(timing=Timing(queued_s=0.1, processing_s=2.0))
    blocks = [
        found.groups()[1:] for page in sorted(Path(folder).glob("*.mdx")) for found in _BLOCK.finditer(page.read_text())
    ]
    environment = {**os.environ, "OXEN_API_KEY": api.server.key}
    ran = []
    for language, code in blocks:
        code = textwrap.dedent(code).replace(HOST, api.server.url)
        if language == "python":  # one page has JSON's word in it
            code = code.replace(": false", ": False")
        command = [sys.executable, "-c", code] if language == "python" else ["bash", "-c", code]
        ran.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    for (_, code), process in zip(blocks, ran, strict=True):
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0 and ("http" in out or "request_schema" in out), f"{code}\n{out}\n{err}"
    paid = sum("/api/ai/queue" in code or "/images/edit" in code for _, code in blocks)
    assert len(api.server.billed) == paid >= 8
    assert not [job for job in api.server.jobs.values() if job.error_message]
