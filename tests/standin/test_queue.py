"""The queue: enqueue, rows, lists, cancel, and the history behind it."""

from __future__ import annotations

import uuid

import pytest
import requests
from kontext_bridge.standin import Timing
from patience import PATIENCE

HELD = Timing(queued_s=0.0, processing_s=0.0)


def test_enqueue_answers_at_once_with_a_queued_uuid(api):
    api.server.hold("queued")
    reply = api.enqueue()
    (entry,) = reply.json()["generations"]
    assert reply.status_code == 200
    assert entry["status"] == "queued"
    assert uuid.UUID(entry["generation_id"]).version == 4


def test_each_generation_of_one_request_is_billed(api):
    ids = [entry["generation_id"] for entry in api.enqueue(num_generations=4).json()["generations"]]
    assert [bill.what for bill in api.server.billed] == ids == list(api.server.jobs)
    assert api.server.state()["billed_twice"] == []


@pytest.mark.parametrize("count", [0, 5, 1.0, "2", True, None])
def test_a_number_of_generations_out_of_range_is_refused(api, count):
    reply = api.enqueue(num_generations=count)
    assert reply.status_code == 400
    assert reply.json()["error"]["detail"] == "num_generations must be an integer between 1 and 4"
    assert api.server.billed == []


def test_unknown_and_text_models_are_refused(api):
    assert api.enqueue(model="nope").json() == {"error": {"message": "Model not found: nope"}}
    assert api.enqueue(model=["flux-kontext-dev"]).status_code == 404
    reply = api.enqueue(model="stand-in-text-model")
    assert (reply.status_code, reply.json()) == (400, {"error": {"detail": ":unsupported_media_type"}})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"aspect_ratio": "5:3"}, "aspect_ratio"),
        ({"prompt": ""}, "Prompt cannot be empty"),
        ({"input_image": "https://example.com/a.png"}, "403 Client Error: Forbidden for url: https://example"),
        ({"input_image": None}, "403 Client Error"),
    ],
)
def test_bad_parameters_are_taken_billed_and_fail_later(api, change, words):
    row = api.ended(api.submit(**change))
    assert row["status"] == "failed"
    assert words in row["error_message"]
    assert row["result_url"] is None
    assert len(api.server.billed) == 1


def test_a_mistake_of_the_stand_ins_own_ends_the_job_in_words(api, monkeypatch):
    monkeypatch.setattr("kontext_bridge.standin.service.make_edit", lambda: b"")
    row = api.ended(api.submit())
    assert row["status"] == "failed" and "The stand-in itself failed: TypeError" in row["error_message"]


def test_the_row_echoes_what_was_sent_and_passes_through_its_states(api):
    api.server.hold("queued")
    job = api.submit(num_generations=1, target_namespace="herd")
    queued = api.row(job).json()
    assert queued.items() >= (api.params.items() - {("model", "flux-kontext-dev")})
    assert queued["model_name"] == "flux-kontext-dev"
    assert queued["target_namespace"] == "herd"
    assert "model" not in queued
    assert (queued["status"], queued["started_at"], queued["completed_at"]) == ("queued", None, None)
    api.server.hold("processing")
    api.server.release()
    ended = api.ended(job)
    assert ended["status"] == "succeeded"
    assert ended["enqueued_at"] <= ended["started_at"] <= ended["completed_at"]
    assert requests.get(ended["result_url"], timeout=PATIENCE).content.startswith(b"\xff\xd8")
    assert api.server.delivered == {job}


def test_every_reading_of_the_row_gives_a_fresh_address(api):
    job = api.submit()
    first = api.ended(job)["result_url"]
    second = api.row(job).json()["result_url"]
    assert first != second
    assert requests.get(first, timeout=PATIENCE).content == requests.get(second, timeout=PATIENCE).content


def test_the_address_of_a_result_expires(serve):
    api = serve(Timing(queued_s=0, processing_s=0, result_ttl_s=0.0))
    assert api.result(api.submit()).status_code == 403
    assert api.server.delivered == set()


def test_an_unknown_id_is_404_for_reading_and_cancelling(api):
    for method in ("GET", "DELETE"):
        reply = api.call(method, f"/api/ai/queue/{uuid.uuid4()}")
        assert reply.status_code == 404
        assert reply.json()["error"]["type"] == "resource_not_found"
        assert api.call(method, "/api/ai/queue/not-a-uuid").status_code == 404


@pytest.mark.parametrize("stage", ["queued", "processing"])
def test_cancel_keeps_the_row_and_sends_no_event(serve, stage):
    api = serve(HELD)
    api.server.hold(stage)
    with api.events() as stream:
        job = api.submit()
        api.server.wait_for(lambda s: s.jobs[job].status == stage)
        reply = api.call("DELETE", f"/api/ai/queue/{job}")
        assert reply.json() == {"status": "success", "generation_id": job}
        assert api.row(job).json()["status"] == "cancelled"
        api.server.release()
        other = api.submit()
        assert job.encode() not in stream.until(other.encode())
    assert api.row(job).json()["status"] == "cancelled"


def test_cancelling_what_has_ended_changes_nothing(api):
    job = api.submit()
    before = api.ended(job)
    assert api.call("DELETE", f"/api/ai/queue/{job}").status_code == 200
    after = api.row(job).json()
    assert after["status"] == "succeeded"
    assert after["completed_at"] == before["completed_at"]


def test_the_list_shows_what_is_active_unless_asked_newest_first(api):
    done, failed = api.submit(), api.submit(prompt="")
    api.ended(done)
    api.ended(failed)
    api.server.hold()
    active = [api.submit(), api.submit(target_namespace="herd")]

    def ids(**query):
        reply = api.call("GET", "/api/ai/queue", params=query).json()
        assert reply["count"] == len(reply["generations"])
        return [row["generation_id"] for row in reply["generations"]]

    assert ids() == active[::-1]
    assert ids(status="succeeded") == [done]
    assert ids(status="failed") == [failed]
    assert ids(namespace="herd") == [active[1]]
    assert ids(model="other") == ids(media_type="video") == []


def test_jobs_are_steered_one_by_one(api):
    api.server.hold()
    first, second, third = (api.submit() for _ in range(3))
    api.server.finish(second)
    api.server.fail(third, "the ox said no")
    assert [api.row(job).json()["status"] for job in (first, second, third)][1:] == ["succeeded", "failed"]
    assert api.row(third).json()["error_message"] == "the ox said no"
    assert not api.server.jobs[first].status.terminal
    api.server.release()
    assert api.ended(first)["status"] == "succeeded"


def test_history_pages_through_everything_and_adds_up_the_cost(api):
    jobs = [api.submit() for _ in range(3)] + [api.submit(prompt="")]
    for job in jobs:
        api.ended(job)
    reply = api.call("GET", "/api/ai/generations", params={"page_size": 3}).json()
    assert [row["generation_id"] for row in reply["generations"]] == jobs[:0:-1]
    assert [row["cost"] for row in reply["generations"]] == [None, "0.04", "0.04"]
    assert {k: v for k, v in reply.items() if k != "generations"} == {
        "count": 3,
        "page_number": 1,
        "page_size": 3,
        "total_pages": 2,
        "total_entries": 4,
        "total_cost": "0.12",
    }
    second = api.call("GET", "/api/ai/generations", params={"page_size": 3, "page": 2}).json()
    assert [row["generation_id"] for row in second["generations"]] == jobs[:1]
    failed = api.call("GET", "/api/ai/generations", params={"status": "failed"}).json()
    assert (failed["count"], failed["total_cost"]) == (1, None)


@pytest.mark.parametrize("query", [{"page": 0}, {"page_size": 1001}, {"page": "x"}])
def test_history_refuses_a_page_that_cannot_be(api, query):
    assert api.call("GET", "/api/ai/generations", params=query).status_code == 400


def test_history_details_are_wrapped(api):
    job = api.submit()
    api.ended(job)
    reply = api.call("GET", f"/api/ai/generations/{job}").json()
    assert (reply["status"], reply["status_message"]) == ("success", "resource_found")
    assert reply["generation"]["cost"] == "0.04"
    assert reply["generation"]["username"] == "bessie"
    assert api.call("GET", "/api/ai/generations/x").status_code == 404
