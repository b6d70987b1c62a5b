"""Every switch about lists, rows and clocks shows, on a real socket, as its description says."""

from __future__ import annotations

import time
import unicodedata
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

import pytest
import requests
from kontext_bridge.standin import Fault, faults

LISTS = ("/api/ai/queue?status=succeeded", "/api/ai/generations")
PROMPT = " paint the façade blue "


def everywhere(api, **params):
    """The row of one finished job as the queue, the history and both details tell it."""
    job = api.submit(prompt=PROMPT, output_format="png", **params)
    api.ended(job)
    listed = [row for path in LISTS for row in api.call("GET", path).json()["generations"]]
    lists = [row for row in listed if row["generation_id"] == job]
    assert len(lists) == len(LISTS)
    return [*lists, api.row(job).json(), api.call("GET", f"/api/ai/generations/{job}").json()["generation"]]


def echoes(api, name, **params):
    """How a field is echoed; alike everywhere."""
    found = [row.get(name, "absent") for row in everywhere(api, **params)]
    assert found == found[:1] * len(found)
    return found[0]


def rows(api, path, **query):
    return api.call("GET", path, params=query).json()["generations"]


def list_input_image(api):
    sent = api.params["input_image"]
    assert echoes(api, "input_image").startswith(api.server.url)
    for how, shown in {"cut": sent[:64], "null": None, "absent": "absent"}.items():
        api.server.set(list_input_image=how)
        assert echoes(api, "input_image") == shown
    api.server.set(list_input_image="reencoded")
    assert echoes(api, "input_image").startswith("data:image/jpeg;base64,")


def list_prompt(api):
    assert echoes(api, "prompt") == PROMPT.strip()
    shown = {"nfd": unicodedata.normalize("NFD", PROMPT), "cut": PROMPT[: len(PROMPT) // 2], "upper": PROMPT.upper()}
    for how, prompt in shown.items():
        api.server.set(list_prompt=how)
        assert echoes(api, "prompt") == prompt != PROMPT
    api.server.set(list_prompt="rewritten")
    assert not set(echoes(api, "prompt").split()) & set(PROMPT.split())


def list_numbers(api):
    assert echoes(api, "guidance", guidance=2.5) == "2.5"
    api.server.set(list_numbers="guidance_near")
    assert echoes(api, "guidance", guidance=2.5) == 2.4999999
    api.server.set(list_numbers="seed_text")
    assert echoes(api, "seed") == "7"
    api.server.set(list_numbers="seed_own")
    assert echoes(api, "seed") == 1_000_010


def list_model(api):
    name = echoes(api, "model_name")
    assert name.startswith("black-forest-labs/")
    sent = name.partition("/")[2]
    assert not rows(api, "/api/ai/generations", model=sent) and rows(api, "/api/ai/generations", model=name)
    api.server.set(list_model="FLUX")
    assert echoes(api, "model_name") == "FLUX"


def list_entries(api):
    api.ended(api.submit())
    assert api.call("GET", "/api/ai/generations").json()["total_entries"] is None
    api.server.set(list_entries=40)
    assert api.call("GET", "/api/ai/generations").json()["total_entries"] == 40


def list_enqueued_at(api):
    now = time.time()
    assert echoes(api, "enqueued_at") is None
    api.server.set(list_enqueued_at="text")
    assert 0 <= int(echoes(api, "enqueued_at")) - int(now) < 90
    api.server.set(list_enqueued_at="ms")
    assert 0 <= echoes(api, "enqueued_at") / 1000 - int(now) < 90
    api.server.set(list_enqueued_at="iso")
    told = datetime.strptime(echoes(api, "enqueued_at"), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    assert 0 <= told.timestamp() - int(now) < 90
    api.server.set(list_enqueued_at="naive")
    assert 0 <= datetime.fromisoformat(echoes(api, "enqueued_at")).timestamp() - int(now) < 90


def list_newer(api):
    job = api.submit()
    api.ended(job)
    reply = api.call("GET", "/api/ai/generations", params={"page_size": 10}).json()
    assert reply["total_pages"] == 2
    times = [row["enqueued_at"] for row in reply["generations"]]
    assert times == sorted(times, reverse=True)
    assert job not in {row["generation_id"] for row in reply["generations"]}
    assert rows(api, "/api/ai/generations", page=2, page_size=10)[-1]["generation_id"] == job
    assert len(api.server.jobs) == len(api.server.billed) == 1
    stranger = api.row(reply["generations"][0]["generation_id"]).json()
    assert requests.get(stranger["result_url"], timeout=5).ok
    assert api.server.delivered == set()


def list_pages(api):
    for _ in range(3):
        api.submit()
    assert api.call("GET", "/api/ai/generations?page_size=1").json()["total_pages"] is None
    api.server.set(list_pages=1)
    reply = api.call("GET", "/api/ai/generations?page_size=1").json()
    assert (reply["total_pages"], reply["total_entries"]) == (1, 3)
    assert len(rows(api, "/api/ai/generations", page=3, page_size=1)) == 1


def list_small_pages(api):
    for _ in range(3):
        api.submit()
    api.server.set(list_small_pages=2)
    reply = api.call("GET", "/api/ai/generations?page_size=10").json()
    assert (reply["page_size"], len(reply["generations"]), reply["total_pages"]) == (2, 2, 2)


def list_page_ignored(api):
    newest = [api.submit() for _ in range(3)][-1]
    for page in (1, 2, 3):
        (row,) = rows(api, "/api/ai/generations", page=page, page_size=1)
        assert row["generation_id"] == newest


def list_order(api):
    jobs = [api.submit() for _ in range(12)]
    for job in jobs:
        api.ended(job)
    for path in LISTS:
        assert [row["generation_id"] for row in rows(api, path)] == jobs
        api.server.set(list_order="shuffled")
        seen = [row["generation_id"] for row in rows(api, path)]
        assert sorted(seen) == sorted(jobs) and seen not in (jobs, jobs[::-1])
        api.server.set(list_order=True)


def list_null_id(api):
    job = api.submit()
    api.ended(job)
    for path in LISTS:
        assert [row["generation_id"] for row in rows(api, path)] == [None, job]
    api.server.set(list_null_id="all")
    for path in LISTS:
        assert [row["generation_id"] for row in rows(api, path)] == [None]


def list_null(api):
    api.ended(api.submit())
    for path in LISTS:
        assert rows(api, path) is None


def row_late(api):
    api.server.set(row_late=3600)
    job = api.submit()
    assert api.row(job).status_code == api.call("GET", f"/api/ai/generations/{job}").status_code == 404
    api.server.set(row_late=1e-6)
    assert api.row(job).ok and api.call("GET", f"/api/ai/generations/{job}").ok


def row_other_id(api):
    api.server.set(row_other_id=Fault(times=1))
    job = api.submit()
    other, own = api.row(job).json(), api.ended(job)
    assert other["generation_id"] != job and other["status"] == "succeeded"
    picture = requests.get(other["result_url"], timeout=5).content
    assert picture and picture != requests.get(own["result_url"], timeout=5).content
    assert set(api.server.jobs) == {job}


def status_case(api):
    assert echoes(api, "status") == "Succeeded"
    api.server.set(status_case="upper")
    assert echoes(api, "status") == "SUCCEEDED"


def status_starting(api):
    api.server.set(status_starting=3600)
    job = api.submit()
    assert api.row(job).json()["status"] == "starting"
    api.server.set(status_starting=1e-6)
    assert api.ended(job)["status"] == "succeeded"


def cost_odd(api):
    for value, told in {True: "1e9999999", "NaN": "NaN", -5: "-5", "a few cents": "a few cents"}.items():
        api.server.set(cost_odd=value)
        job = api.submit()
        assert api.call("GET", f"/api/ai/generations/{job}").json()["generation"]["cost"] == told
        api.ended(job)
        assert rows(api, "/api/ai/generations")[0]["cost"] == told


def date_off(api):
    def off(path="/api/ai/generations"):
        told = parsedate_to_datetime(api.call("GET", path).headers["Date"])
        return round((told.timestamp() - time.time()) / 100) * 100

    assert off() == 7200
    api.server.set(date_off=-900)
    assert off() == off("/api/nowhere") == -900
    api.server.set(date_off="varies")
    assert {off() for _ in range(3)} == {7200, 0, -7200}


MINE = [name for name in faults.NAMES if name in globals()]


@pytest.mark.parametrize("name", MINE)
def test_the_switch_shows_as_it_says(serve, name):
    api = serve(**{name: True})
    globals()[name](api)
    assert api.server.shown[name] >= 1
