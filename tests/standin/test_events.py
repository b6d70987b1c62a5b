"""GET /api/events."""

from __future__ import annotations

import json

from kontext_bridge.standin import Timing


def test_the_end_of_a_job_is_told_once_to_every_stream(api):
    with api.events() as one, api.events() as two:
        api.server.wait_for(lambda s: s.streams == 2)
        job = api.submit()
        failed = api.submit(prompt="")
        for stream in (one, two):
            stream.until(job.encode() + b'","status"')
            body = stream.until(failed.encode() + b'","status"')
            body = stream.until(b"}\n\n")
            assert b"Content-Type: text/event-stream\r\n" in body
            assert body.count(job.encode() + b'","status"') == 1


def test_the_event_has_names_of_its_own(api):
    with api.events() as stream:
        job = api.submit()
        done = stream.until(b"}\n\n")
        stream.seen = b""
        failed = api.submit(prompt="")
        wrong = stream.until(b"}\n\n")
    assert done.count(b"event: media_generation_completed\ndata: {") == 1
    data = json.loads(done[done.index(b"{") :])
    url = data.pop("url")
    assert data == {
        "generation_id": job,
        "status": "succeeded",
        "media_type": "image",
        "model": "flux-kontext-dev",
    }
    assert url.startswith(api.server.url)
    assert json.loads(wrong[wrong.index(b"{") :]) == {
        "generation_id": failed,
        "status": "failed",
        "media_type": "image",
        "error": "Prompt cannot be empty",
    }


def test_nothing_is_replayed_for_those_who_come_late(api):
    job = api.submit()
    api.ended(job)
    with api.events() as stream:
        other = api.submit()
        assert job.encode() not in stream.until(other.encode())


def test_an_idle_stream_is_kept_alive(serve):
    api = serve(Timing(keepalive_s=0.02))
    with api.events() as stream:
        assert stream.until(b": keep-alive\n\n: keep-alive\n\n")


def test_the_synchronous_route_sends_no_event(api):
    with api.events() as stream:
        api.edit()
        api.server.emit(b"the end")
        assert b"event:" not in stream.until(b"the end")


def test_raw_bytes_reach_the_stream_as_they_are(api):
    with api.events() as stream:
        api.server.emit(b"\xffeven this\r")
        assert stream.until(b"\xffeven this\r")


def test_a_stream_that_was_left_is_forgotten(api):
    with api.events():
        pass
    api.server.wait_for(lambda s: s.streams == 0)


def test_streams_can_be_ended_from_outside(api):
    with api.events() as stream:
        api.server.close_streams()
        assert stream.rest().endswith(b"\r\n\r\n")
