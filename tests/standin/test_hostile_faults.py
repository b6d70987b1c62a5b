"""Every switch about answers that are hostile, or odd in their headers, shows, on a real socket, as it says."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import zlib
from urllib.parse import urlsplit

import pytest
import requests
from kontext_bridge.standin import Fault, faults

MIB = 1 << 20


@contextlib.contextmanager
def talk(api, method, path, body=b""):
    """A connection on which the request has been sent."""
    where = urlsplit(api.server.url)
    with socket.create_connection((where.hostname, where.port), timeout=5) as sock:
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.server.key}\r\nConnection: close\r\n"
        sock.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        yield sock


def answer(api, method, path, body=b"", limit=3 * MIB):
    """The answer's first bytes as they came; all of them where it ends."""
    seen = b""
    with talk(api, method, path, body) as sock:
        while len(seen) < limit and (block := sock.recv(1 << 16)):
            seen += block
    return seen


def posted(api, limit=3 * MIB):
    return answer(api, "POST", "/api/ai/queue", json.dumps(api.params).encode(), limit)


def accepted(api, count):
    api.server.wait_for(lambda s: len(s.billed) >= count)
    assert len(api.server.billed) == len(api.server.jobs) == count


def anywhere(api, name, check, value=True):
    """The switch shows on a paid route, where a job is made, and on any route that it is moved to."""
    api.server.set(**{name: value})
    check(posted(api))
    accepted(api, 1)
    check(answer(api, "POST", "/api/ai/images/edit", json.dumps(api.params).encode()))
    accepted(api, 2)
    (job, _) = api.server.jobs
    api.server.set(**{name: False})
    url = urlsplit(api.ended(job)["result_url"])
    paths = {
        "row": f"/api/ai/queue/{job}",
        "queue": "/api/ai/queue",
        "history": "/api/ai/generations",
        "generation": f"/api/ai/generations/{job}",
        "events": "/api/events",
        "model": "/api/ai/models/flux-kontext-dev",
        "me": "/api/users/me",
        "result": f"{url.path}?{url.query}",
    }
    for route, path in paths.items():
        api.server.set(**{name: Fault(value, route=route)})
        check(answer(api, "GET", path))
    assert api.server.delivered == set()
    accepted(api, 2)


def answer_status(api):
    for value, status, text in ((True, 409, "error code: 409"), (499, 499, "499"), ("429 json", 429, '{"message"')):
        api.server.set(answer_status=value)
        for send in (api.enqueue, api.edit):
            reply = send()
            assert reply.status_code == status and text in reply.text
            assert '"error"' not in reply.text
    accepted(api, 6)


def answer_bad_header(api):
    seen = posted(api)
    head, _, body = seen.partition(b"\r\n\r\n")
    assert b"Content-Length: 1, 78" in head
    assert len(json.loads(body)["generations"]) == 1
    accepted(api, 1)
    api.server.set(answer_bad_header="Content-Length: many")
    assert b"Content-Length: many\r\n" in posted(api)


def answer_interim(api):
    statuses = [line for line in posted(api).split(b"\r\n") if line.startswith(b"HTTP/1.1")]
    assert [line.split()[1] for line in statuses] == [b"102", b"103", b"200"]
    accepted(api, 1)
    api.server.set(answer_interim=103)
    assert answer(api, "GET", "/api/users/me").startswith(b"HTTP/1.1 103")
    assert answer(api, "GET", "/api/events", limit=100).startswith(b"HTTP/1.1 103")


def result_late(api):
    api.server.set(result_late="403:3600")
    job = api.submit()
    assert api.result(job).status_code == 403
    api.server.set(result_late=3600)
    assert api.result(job).status_code == 404
    api.server.set(result_late=1e-6)
    assert api.result(job).ok
    assert api.server.delivered == {job}


def result_gzip(api):
    job = api.submit()
    reply = api.result(job, stream=True)
    assert reply.headers["Content-Encoding"] == "gzip"
    packed = reply.raw.read(decode_content=False)
    assert len(packed) == int(reply.headers["Content-Length"])
    assert gzip.decompress(packed) == api.server.jobs[job].result
    assert api.server.delivered == {job}


def result_aws_chunked(api):
    job = api.submit()
    reply = api.result(job)
    assert reply.headers["Content-Encoding"] == "aws-chunked"
    assert reply.content == api.server.jobs[job].result
    assert api.server.delivered == {job}


def bomb(api):
    def check(seen):
        head, _, packed = seen.partition(b"\r\n\r\n")
        assert b"Content-Encoding: gzip" in head and b"HTTP/1.1 200" in head
        assert len(packed) < 200_000
        reader = zlib.decompressobj(wbits=31)
        text = reader.decompress(packed)
        assert len(text) > 8_000_000 and reader.eof
        assert text.startswith(b'{"generations":[{},{},') and text.endswith(b",{}]}")

    anywhere(api, "bomb", check, 9)


def redirect_body(api):
    def check(seen):
        assert seen.startswith(b"HTTP/1.1 302") and b"Location: /api/" in seen
        assert len(seen) >= 3 * MIB

    anywhere(api, "redirect_body", check)


def trailers_endless(api):
    def check(seen):
        assert seen.startswith(b"HTTP/1.1 200") and b"\r\n0\r\nX-More" in seen
        assert len(seen) >= 3 * MIB

    anywhere(api, "trailers_endless", check)


def headers_endless(api):
    def check(seen):
        assert seen.startswith(b"HTTP/1.1 200") and b"\r\n\r\n" not in seen
        assert len(seen) >= 3 * MIB

    anywhere(api, "headers_endless", check)


def interim_endless(api):
    def check(seen):
        assert set(seen.split(b"\r\n\r\n")[:-1]) == {b"HTTP/1.1 102 Processing"}
        assert len(seen) >= 3 * MIB

    anywhere(api, "interim_endless", check)


MINE = [name for name in faults.NAMES if name in globals()]


@pytest.mark.parametrize("name", MINE)
def test_the_switch_shows_as_it_says(serve, name):
    api = serve(**{name: True})
    globals()[name](api)
    assert api.server.shown[name] >= 1


def test_who_hangs_up_on_an_endless_answer_ends_it(serve):
    api = serve(trailers_endless=True)
    for _ in range(3):
        posted(api)
    assert requests.get(api.server.url + "/api/ai/models", timeout=5).ok
