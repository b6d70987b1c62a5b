"""Every switch shows, on a real socket, as its description says; those of lists and hostile answers have their own
files.
"""

from __future__ import annotations

import base64
import io
import json
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
import requests
from kontext_bridge.standin import Fault, faults
from patience import PATIENCE
from PIL import Image

RESET = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError, ConnectionResetError)
TEXT = "the worker ate it"
UNKNOWN_PATH = "/api/ai/queue/00000000-0000-0000-0000-000000000000"


def accepted(api, count):
    # Who gave up waiting may be ahead of the server.
    api.server.wait_for(lambda s: len(s.billed) >= count)
    assert len(api.server.billed) == len(api.server.jobs) == count


def paid(api, status, words, **params):
    """Both paid routes answer so, and nothing is billed."""
    for send in (api.edit, api.enqueue):
        reply = send(**params)
        assert reply.status_code == status
        assert words in reply.text
    accepted(api, 0)


def resets(send, *args, **more):
    with pytest.raises(RESET):
        send(*args, **more)


def hangs(send, *args):
    with pytest.raises(requests.ReadTimeout):
        send(*args, timeout=0.3)


def is_html(reply, status=200):
    assert reply.status_code == status
    assert reply.headers["Content-Type"].startswith("text/html")
    assert reply.text.startswith("<!DOCTYPE html>")


def depth(text):
    return text.count("[")


def never_ends(reply, more_than=3_000_000):
    got = 0
    with reply:
        for block in reply.iter_content(65536):
            got += len(block)
            if got > more_than:
                return
    raise AssertionError(f"it ended after {got} bytes")


def reset_before_body(api):
    resets(api.enqueue)
    resets(api.edit)
    accepted(api, 0)
    assert [r.body_bytes for r in api.server.requests] == [0, 0]


def rate_limited(api):
    paid(api, 429, "Too many requests")
    assert "Retry-After" not in api.enqueue().headers
    api.server.set(rate_limited=2)
    assert api.enqueue().headers["Retry-After"] == "2"
    api.server.set(rate_limited="date:60")
    before = int(time.time())
    then = parsedate_to_datetime(api.enqueue().headers["Retry-After"]).timestamp()
    assert before + 60 <= then <= time.time() + 60
    accepted(api, 0)


def unauthorized(api):
    paid(api, 401, '"unauthenticated"')


def out_of_credits(api):
    paid(api, 402, '"insufficient_credits"')


def server_error(api):
    paid(api, 500, "<!DOCTYPE html>")


def upstream_error(api):
    assert api.enqueue().json()["status"] == 502
    paid(api, 502, '"upstream"')


def error_text(api):
    api.server.set(error_text=TEXT)
    assert api.enqueue().json() == {"error": TEXT}
    accepted(api, 0)


def error_in_ok(api):
    paid(api, 200, '"error"')


def empty_generations(api):
    assert api.enqueue().json()["generations"] == []
    assert api.edit().json()["images"] == []
    accepted(api, 0)


def html_reply(api):
    is_html(api.enqueue())
    is_html(api.edit())
    accepted(api, 0)


def deep_json(api):
    reply = api.enqueue()
    assert depth(reply.text) == 10_000
    with pytest.raises(RecursionError):
        json.loads(reply.text)
    accepted(api, 0)


def endless_reply(api):
    never_ends(api.call("POST", "/api/ai/queue", json=api.params, stream=True))
    accepted(api, 0)


def never_answers(api):
    hangs(api.enqueue)
    hangs(api.edit)
    accepted(api, 0)


def data_uri_refused(api):
    paid(api, 500, "Internal Server Error")
    api.enqueue(input_image=api.server.url + "/x.png")
    accepted(api, 1)


def body_limit(api):
    api.server.set(body_limit=5000)
    paid(api, 413, "too large", prompt="x" * 5000)
    api.enqueue()
    accepted(api, 1)


def strict_fields(api):
    reply = api.edit(strength=0.5)
    assert reply.status_code == 400
    assert "strength" in reply.text
    assert "strength" in api.ended(api.submit(strength=0.5))["error_message"]
    assert api.edit().ok


def answer_dropped(api):
    resets(api.enqueue)
    accepted(api, 1)
    resets(api.edit)
    accepted(api, 2)


def answer_cut(api):
    resets(api.enqueue)
    accepted(api, 1)


def answer_hangs(api):
    with api.call("POST", "/api/ai/queue", json=api.params, stream=True) as reply:
        half = int(reply.headers["Content-Length"]) // 2
        assert reply.raw.read(half).startswith(b'{"generations":')
        reply.raw._fp.fp.raw._sock.settimeout(0.3)
        with pytest.raises(Exception, match="timed out"):
            reply.raw.read(1)
    accepted(api, 1)


def answer_error(api):
    is_html(api.enqueue(), 504)
    accepted(api, 1)


def answer_html(api):
    is_html(api.enqueue())
    accepted(api, 1)


def answer_never(api):
    hangs(api.enqueue)
    accepted(api, 1)


def answer_delayed(api):
    api.server.set(answer_delayed=0.6)
    hangs(api.enqueue)
    accepted(api, 1)
    assert api.enqueue().ok


def poll_unauthorized(api):
    job = api.submit()
    api.server.set(poll_unauthorized=Fault(after=2))
    assert [api.row(job).status_code for _ in range(4)] == [200, 200, 401, 401]


def poll_missing(api):
    assert api.row(api.submit()).status_code == 404


def poll_error(api):
    job = api.submit()
    api.server.set(poll_error=Fault(503, times=2))
    assert [api.row(job).status_code for _ in range(3)] == [503, 503, 200]


def poll_rate_limited(api):
    api.server.set(poll_rate_limited=3)
    reply = api.row(api.submit())
    assert (reply.status_code, reply.headers["Retry-After"]) == (429, "3")


def poll_html(api):
    is_html(api.row(api.submit()))


def poll_deep_json(api):
    assert depth(api.row(api.submit()).text) == 10_000


def poll_endless(api):
    never_ends(api.call("GET", f"/api/ai/queue/{api.submit()}", stream=True))


def poll_reset(api):
    resets(api.row, api.submit())


def poll_never_answers(api):
    hangs(api.row, api.submit())


def poll_delayed(api):
    job = api.submit()
    api.server.set(poll_delayed=2)
    hangs(api.row, job)
    assert api.row(job).json()["generation_id"] == job


def poll_odd_status(api):
    assert api.row(api.submit()).json()["status"] == "completed"


def stuck(api):
    job = api.submit()
    api.server.wait_for(lambda s: s.jobs[job].status == "processing")
    time.sleep(0.2)
    assert api.row(job).json()["status"] == "processing"
    api.server.finish(job)
    assert api.row(job).json()["status"] == "succeeded"


def stuck_queued(api):
    job = api.submit()
    time.sleep(0.2)
    assert api.row(job).json()["status"] == "queued"


def fails_with(api, words):
    row = api.ended(api.submit())
    assert row["status"] == "failed"
    assert words in row["error_message"]
    assert row["result_url"] is None
    accepted(api, 1)


def run_fails(api):
    api.server.set(run_fails=TEXT)
    fails_with(api, TEXT)


def run_moderated(api):
    fails_with(api, "flagged by the safety checker")


def run_out_of_credits(api):
    fails_with(api, "Insufficient credits")
    assert api.edit().status_code == 402


def no_result_url(api):
    row = api.ended(api.submit())
    assert (row["status"], row["result_url"]) == ("succeeded", None)


def cancel_loses(api):
    api.server.hold()
    job = api.submit()
    assert api.call("DELETE", f"/api/ai/queue/{job}").status_code == 200
    assert api.row(job).json()["status"] == "succeeded"
    assert api.result(job).ok


def cancel_error(api):
    api.server.hold()
    job = api.submit()
    is_html(api.call("DELETE", f"/api/ai/queue/{job}"), 500)
    assert api.row(job).json()["status"] in ("queued", "processing")


def cancel_never_answers(api):
    hangs(lambda timeout: api.call("DELETE", f"/api/ai/queue/{api.submit()}", timeout=timeout))


def list_error(api):
    for path in ("/api/ai/queue", "/api/ai/generations", f"/api/ai/generations/{api.submit()}"):
        is_html(api.call("GET", path), 500)


def list_lags(api):
    api.server.set(list_lags=60)
    job = api.submit()
    for path in ("/api/ai/queue", "/api/ai/generations"):
        assert api.call("GET", path).json()["count"] == 0
    assert api.row(job).ok
    api.server.set(list_lags=0)
    assert api.call("GET", "/api/ai/generations").json()["count"] == 1


def history_without_sync(api):
    api.edit()
    api.submit()
    assert api.call("GET", "/api/ai/generations").json()["count"] == 1
    api.server.set(history_without_sync=False)
    assert api.call("GET", "/api/ai/generations").json()["count"] == 2


def events_unauthorized(api):
    assert api.call("GET", "/api/events").status_code == 401


def events_error(api):
    is_html(api.call("GET", "/api/events"), 500)


def events_html(api):
    is_html(api.call("GET", "/api/events"))


def events_never_answers(api):
    hangs(lambda timeout: api.call("GET", "/api/events", timeout=timeout))


def events_silent(api):
    with api.events() as stream:
        api.ended(api.submit())
        stream.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            stream.until(b"\n\n")
        assert stream.seen.endswith(b"\r\n\r\n")


def events_cut(api):
    with api.events() as stream:
        api.submit()
        resets(stream.until, b"\n\n")
        assert b"event: media_gen" in stream.seen


def events_closed(api):
    assert api.call("GET", "/api/events").content == b""


def events_long_line(api):
    api.server.set(events_long_line=3)
    with api.call("GET", "/api/events", stream=True) as reply:
        block = reply.raw.read(3_000_006)
    assert block == b"data: " + b"a" * 3_000_000


def events_foreign(api):
    with api.events() as stream:
        job = api.submit()
        body = stream.until(job.encode() + b'","status"')
    assert body.index(b"event: deployment_status") < body.index(b"event: media_generation_completed")
    assert b": a comment" in body


def events_someone_else(api):
    with api.events() as stream:
        job = api.submit()
        body = stream.until(job.encode() + b'","status"')
    assert body.count(b"event: media_generation_completed") == 2


def events_lost(api):
    with api.events() as stream:
        api.ended(api.submit())
        api.server.emit(b"the end")
        assert b"media_generation_completed" not in stream.until(b"the end")


def events_early(api):
    api.server.hold()
    with api.events() as stream:
        job = api.submit()
        assert b"succeeded" in stream.until(job.encode() + b'","status":"succeeded"')
        assert api.row(job).json()["status"] == "processing"


def events_twice(api):
    with api.events() as stream:
        api.ended(api.submit())
        api.server.emit(b"the end")
        assert stream.until(b"the end").count(b"event: media_generation_completed") == 2


def events_crlf(api):
    with api.events() as stream:
        api.submit()
        body = stream.until(b"\r\n\r\nevent: media")
        body = stream.until(b"}\r\n\r\n")
    assert b"\n" not in body.replace(b"\r\n", b"")


def events_bytewise(api):
    # The kernel joins the writes that a busy reader lets lie; a single write would come as one block every time.
    for _ in range(20):
        with api.events() as stream:
            api.submit()
            stream.until(b"event")
            blocks = 0
            while b"}\n\n" not in stream.seen:
                stream.seen += stream.sock.recv(65536)
                blocks += 1
        if blocks > 1:
            return
    raise AssertionError("every event came in one block")


def event_before_answer(api):
    api.server.hold()
    with api.events() as stream:
        job = api.submit()
        # nothing but the fault ends a held job, and it had ended when the answer came
        assert api.server.jobs[job].status.terminal
        assert job.encode() in stream.until(b"succeeded")
    assert api.row(job).json()["status"] == "succeeded"


def image_url_reply(api):
    reply = api.edit().json()
    assert "images" not in reply
    assert requests.get(reply["image_url"], timeout=PATIENCE).ok


def url_though_b64(api):
    assert set(api.edit(response_format="b64_json").json()["images"][0]) == {"url"}


def b64_though_url(api):
    image = api.edit().json()["images"][0]
    assert Image.open(io.BytesIO(base64.b64decode(image["b64_json"]))).format == "JPEG"


def b64_garbage(api):
    text = api.edit(response_format="b64_json").json()["images"][0]["b64_json"]
    with pytest.raises(ValueError, match="base64"):
        base64.b64decode(text, validate=True)
    assert api.server.delivered == set()


def undelivered(api):
    assert api.server.delivered == set()


def result_wrong_type(api):
    reply = api.result(api.submit())
    assert reply.headers["Content-Type"] == "text/plain"
    assert reply.content.startswith(b"\xff\xd8")


def result_truncated(api):
    picture = Image.open(io.BytesIO(api.result(api.submit()).content))
    with pytest.raises(OSError, match="truncated"):
        picture.load()
    undelivered(api)


def result_cut(api):
    resets(api.result, api.submit())
    undelivered(api)


def result_empty(api):
    reply = api.result(api.submit())
    assert (reply.status_code, reply.content) == (200, b"")
    undelivered(api)


def result_html(api):
    is_html(api.result(api.submit()))
    undelivered(api)


def result_expired(api):
    api.server.set(result_expired=Fault(times=1))
    job = api.submit()
    old = api.ended(job)["result_url"]
    assert [requests.get(old, timeout=PATIENCE).status_code for _ in range(2)] == [403, 403]
    assert api.result(job).ok
    assert api.server.delivered == {job}


def result_missing(api):
    assert api.result(api.submit()).status_code == 404


def result_needs_bearer(api):
    job = api.submit()
    assert api.result(job).status_code == 401
    api.server.set(result_needs_bearer=403)
    assert api.result(job).status_code == 403
    assert api.session.get(api.ended(job)["result_url"], timeout=PATIENCE).ok


def result_redirects(api):
    job = api.submit()
    reply = api.result(job)
    assert reply.ok
    assert reply.history[0].status_code == 302
    assert reply.url.split("/")[2] != api.server.url.split("/")[2]
    assert api.server.delivered == {job}
    assert len(api.server.elsewhere) == 1
    assert api.server.leaks == []
    api.server.set(result_redirects="http://169.254.169.254/latest")
    assert api.result(job, allow_redirects=False).headers["Location"] == "http://169.254.169.254/latest"


def result_redirect_loop(api):
    with pytest.raises(requests.TooManyRedirects):
        api.result(api.submit())


def result_error(api):
    job = api.submit()
    api.server.set(result_error=Fault(times=2))
    assert [api.result(job).status_code for _ in range(3)] == [503, 503, 200]


def result_endless(api):
    never_ends(api.result(api.submit(), stream=True))
    undelivered(api)


def result_hangs(api):
    with api.result(api.submit(), stream=True) as reply:
        assert reply.raw.read(64).startswith(b"\xff\xd8")
        reply.raw._fp.fp.raw._sock.settimeout(0.3)
        with pytest.raises(Exception, match="timed out"):
            reply.raw.read(1)
    undelivered(api)


def result_bomb(api):
    body = api.result(api.submit()).content
    assert len(body) < 10_000
    with pytest.raises(Image.DecompressionBombError, match="3600000000"):
        Image.open(io.BytesIO(body))
    undelivered(api)


def upload_refused(api):
    path = "/api/repos/bessie/kontext-inputs"
    put = api.call("PUT", f"{path}/file/main/a.png", files={"file": ("a.png", b"x")})
    context = api.call("POST", f"{path}/workbench/context", files={"file": ("a.png", b"x")})
    new = api.call("POST", "/api/repos", json={"name": "n"})
    assert {put.status_code, context.status_code, new.status_code} == {403}


def json_request_schema(api):
    model = api.call("GET", "/api/ai/models/flux-kontext-dev").json()
    assert "request_schema" not in model
    assert model["json_request_schema"]["required"] == ["prompt", "input_image"]


def models_missing(api):
    reply = api.call("GET", "/api/ai/models/flux-kontext-dev")
    assert (reply.status_code, reply.json()["error"]["message"]) == (404, "Model not found: flux-kontext-dev")


def price_missing(api):
    assert api.call("GET", "/api/ai/models/flux-kontext-dev").json()["pricing"] is None


@pytest.mark.parametrize("name", ["result_truncated", "result_empty", "result_bomb"])
def test_a_spoilt_picture_comes_as_b64_json_too(serve, name):
    api = serve(**{name: True})
    text = api.edit(response_format="b64_json").json()["images"][0]["b64_json"]
    with pytest.raises((OSError, Image.DecompressionBombError)):
        Image.open(io.BytesIO(base64.b64decode(text))).load()
    undelivered(api)


def test_a_key_shown_to_the_other_host_is_a_leak(serve):
    api = serve(result_redirects=True)
    url = api.ended(api.submit())["result_url"]
    away = requests.get(url, allow_redirects=False, timeout=PATIENCE).headers["Location"]
    requests.get(away, headers={"Authorization": "Bearer anything"}, timeout=PATIENCE)
    requests.get(f"{away}?k={api.server.key}", timeout=PATIENCE)
    requests.get(away, timeout=PATIENCE)
    assert [r.number for r in api.server.leaks] == [1, 2]
    assert api.server.key not in repr(api.server.leaks)


def test_the_other_host_can_go_on_for_ever_too(serve):
    api = serve(result_redirects=True, result_endless=True)
    never_ends(api.result(api.submit(), stream=True))


@pytest.mark.parametrize("name", [name for name in faults.NAMES if name in globals()])
def test_the_switch_shows_as_it_says(serve, name):
    api = serve(**{name: True})
    globals()[name](api)
    assert api.server.shown[name] >= 1


def test_every_switch_has_its_test():
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*faults.py"))
    assert [name for name in faults.NAMES if f"\ndef {name}(api):\n" not in text] == []


@pytest.mark.parametrize("name", faults.NAMES)
def test_the_switch_is_described(name):
    assert len(faults.describe()[name]) > 10
