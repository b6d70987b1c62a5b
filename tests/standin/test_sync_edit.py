"""POST /api/ai/images/edit."""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import json
import threading

import pytest
import requests
from kontext_bridge.standin import Timing
from patience import PATIENCE
from PIL import Image

from .conftest import data_uri


def error(reply):
    return reply.json()["error"].get("detail") or reply.json()["error"]["message"]


def test_the_reply_names_a_picture_that_anyone_may_fetch(api):
    reply = api.edit().json()
    assert reply["model"] == "flux-kontext-dev"
    assert isinstance(reply["created"], int)
    picture = requests.get(reply["images"][0]["url"], timeout=PATIENCE)
    assert picture.headers["Content-Type"] == "image/jpeg"
    assert Image.open(io.BytesIO(picture.content)).size == (1248, 832)
    assert api.server.delivered == {"sync-1"}


def test_b64_json_holds_the_picture_and_counts_as_delivered(api):
    image = api.edit(response_format="b64_json", output_format="png").json()["images"][0]
    assert Image.open(io.BytesIO(base64.b64decode(image["b64_json"], validate=True))).format == "PNG"
    assert api.server.delivered == {"sync-1"}


def test_what_is_left_out_gives_wide_webp(api):
    del api.params["aspect_ratio"], api.params["output_format"]
    url = api.edit().json()["images"][0]["url"]
    picture = Image.open(io.BytesIO(requests.get(url, timeout=PATIENCE).content))
    assert (picture.format, picture.size) == ("WEBP", (1392, 752))


def test_each_call_is_billed_once_with_the_digest_of_its_body(api):
    api.edit()
    api.edit()
    canonical = json.dumps(api.params, sort_keys=True, separators=(",", ":")).encode()
    assert [b.what for b in api.server.billed] == ["sync-1", "sync-2"]
    assert {b.digest for b in api.server.billed} == {hashlib.sha256(canonical).hexdigest()}
    assert [b.request for b in api.server.billed] == [1, 2]
    assert len(api.server.state()["billed_twice"]) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("aspect_ratio", "5:3"),
        ("aspect_ratio", 1),
        ("num_inference_steps", 3),
        ("num_inference_steps", 51),
        ("num_inference_steps", 28.5),
        ("guidance", 10.1),
        ("guidance", -1),
        ("guidance", True),
        ("guidance", "2.5"),
        ("seed", "7"),
        ("output_format", "jpeg"),
        ("output_quality", 101),
        ("disable_safety_checker", 1),
        ("response_format", "bytes"),
    ],
)
def test_a_bad_parameter_is_named_and_not_billed(api, field, value):
    reply = api.edit(**{field: value})
    assert (reply.status_code, reply.json()["status_message"]) == (400, "invalid_params")
    assert field in error(reply)
    assert api.server.billed == []


@pytest.mark.parametrize("prompt", ["", "  ", None])
def test_an_empty_prompt_is_refused(api, prompt):
    assert error(api.edit(prompt=prompt)) == "Prompt cannot be empty"


@pytest.mark.parametrize(
    "source",
    [
        "",
        None,
        [data_uri()],
        "https://example.com/ox.png",
        "http://192.168.0.1/ox.png",
        "http://localhost.example.com/x.png",
        "file:///etc/hostname",
        "http://[::ffff:1.2.3.4]/",
        "http://[",
        "http://127.0.0.1.example.com/",
    ],
)
def test_an_address_that_it_must_not_visit_is_forbidden(api, source):
    reply = api.edit(input_image=source)
    assert reply.status_code == 400
    assert "403 Client Error: Forbidden for url: " in error(reply)
    assert api.server.billed == []


@pytest.mark.parametrize("uri", ["data:image/png;base64,%%%", "data:image/png,abc", "data:image/png;base64"])
def test_a_data_uri_that_is_not_base64_is_refused(api, uri):
    assert "Invalid data URI" in error(api.edit(input_image=uri))


def test_a_data_uri_that_holds_no_picture_is_refused(api):
    text = base64.b64encode(b"<html>").decode()
    assert "cannot identify image file" in error(api.edit(input_image=f"data:image/png;base64,{text}"))


def test_an_unknown_model_is_404_in_the_other_envelope(api):
    reply = api.edit(model="flux-kontext-pro")
    assert (reply.status_code, reply.json()) == (
        404,
        {"error": {"message": "Model not found: flux-kontext-pro"}},
    )


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(api, body):
    assert api.call("POST", "/api/ai/images/edit", data=body).status_code == 400


def test_a_picture_on_another_loopback_server_is_fetched(api):
    picture = base64.b64decode(data_uri().partition(",")[2])

    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            found = self.path == "/a.png"
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(picture if found else b"")

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            base = f"http://127.0.0.1:{server.server_port}"
            assert api.edit(input_image=f"{base}/a.png").ok
            assert f"404 Client Error: Not Found for url: {base}/b.png" in error(api.edit(input_image=f"{base}/b.png"))
        finally:
            server.shutdown()
            thread.join()
    assert asked == ["/a.png", "/b.png"]


def test_a_result_can_be_the_next_edits_input(api):
    url = api.edit().json()["images"][0]["url"]
    assert api.edit(input_image=url).ok
    tampered = url.replace("oxen_signature=", "oxen_signature=0")
    assert "403 Client Error" in error(api.edit(input_image=tampered))


def test_the_answer_waits_for_the_picture_and_can_be_steered(serve):
    api = serve(Timing(processing_s=60))
    done = []
    thread = threading.Thread(target=lambda: done.append(api.edit()))
    thread.start()
    api.server.wait_for(lambda s: [j for j in s.jobs.values() if j.status == "processing"])
    assert done == []
    (job,) = api.server.jobs
    api.server.fail(job, "Getting model response error: 500 - upstream died")
    thread.join()
    assert done[0].status_code == 500
    assert "upstream died" in error(done[0])
