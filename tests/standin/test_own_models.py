"""The account's own models, as the service's documents have them: states, both ways to deploy, time that is billed."""

from __future__ import annotations

import time

import pytest
from patience import PATIENCE

MODELS = "/api/ai/models"
TUNES = "/api/repos/bessie/my-edits/fine_tunes"
STATES = {"active", "inactive", "deploying", "deactivating", "error", "unknown"}


def status(api, name):
    return api.call("GET", f"{MODELS}/oxen:{name}?deployment_status=live").json()["deployments"][0]["status"]


def until(api, name, wanted):
    end = time.monotonic() + PATIENCE
    while (now := status(api, name)) != wanted:
        assert time.monotonic() < end, now
        time.sleep(0.02)


def test_the_list_has_the_accounts_models_in_every_state_for_the_key_alone(serve):
    api = serve()
    api.server.own.takes_s = 100
    own = [one for one in api.call("GET", MODELS).json()["data"] if one["model_type"] == "custom"]
    assert {one["deployments"][0]["status"] for one in own} == STATES
    assert all(one["owned_by"] == "bessie" and one["pricing"]["method"] == "time" for one in own)
    api.session.headers.pop("Authorization")
    assert all(one["model_type"] == "base" for one in api.call("GET", MODELS).json()["data"])


def test_a_model_is_refused_asleep_woken_billed_by_time_edits_and_sleeps_again(serve):
    api = serve()
    api.server.own.takes_s = 100
    name = "ox-asleep-fern"
    refused = api.edit(model=f"oxen:{name}")
    assert refused.status_code == 400 and "inactive" in refused.text and not api.server.billed
    assert api.enqueue(model=f"oxen:{name}").status_code == 400
    assert api.server.own.usd(name) == 0
    for _ in range(2):
        woken = api.call("POST", f"{MODELS}/oxen:{name}/activate").json()
    assert woken["deployments"][0]["status"] == "deploying" and api.server.own.models[name].wakings == 1
    api.server.own.takes_s = 0
    until(api, name, "active")
    assert api.edit(model=f"oxen:{name}").status_code == 200
    assert api.call("POST", f"{MODELS}/oxen:{name}/deactivate").json()["deployments"][0]["status"] == "deactivating"
    until(api, name, "inactive")
    usd = api.server.own.usd(name)
    assert 0 < usd < 1 and api.server.own.usd(name) == usd


@pytest.mark.parametrize(("name", "ends"), [("ox-fails-to-wake", "error"), ("ox-never-wakes", "deploying")])
def test_waking_may_fail_or_never_end(serve, name, ends):
    api = serve()
    api.server.own.takes_s = 0.02
    api.call("POST", f"{MODELS}/oxen:{name}/activate")
    time.sleep(0.05)
    assert status(api, name) == ends


@pytest.mark.parametrize("way", ["whole", "checkpoint"])
def test_a_finished_fine_tune_is_deployed_by_either_route_and_the_other_may_be_missing(serve, way):
    api = serve()
    api.server.own.deploys = {way}
    assert api.call("GET", f"{MODELS}/oxen:ox-new-clover").status_code == 404
    tunes = api.call("GET", "/api/user/fine_tunes?page_size=50").json()["fine_tunes"]
    assert [one["status"] for one in tunes if one["name"] == "ox-new-clover"] == ["completed"]
    (last,) = api.call("GET", f"{TUNES}/ft_ox-new-clover/checkpoints").json()["checkpoints"][-1:]
    whole = api.call("POST", f"{TUNES}/ft_ox-new-clover/deploy")
    part = api.call("POST", f"{TUNES}/ft_ox-new-clover/checkpoints/{last['step']}/deploy", json={})
    assert (whole.status_code, part.status_code) == ((200, 404) if way == "whole" else (404, 200))
    made = whole.json()["deployment"]["model_slug"] if way == "whole" else part.json()["model"]["id"]
    assert made == "oxen:ox-new-clover" and api.server.own.models["ox-new-clover"].wakings == 1


def test_the_weights_are_a_file_on_the_branch_of_their_name_for_the_key_alone(serve):
    api = serve()
    where = "/api/repos/bessie/my-edits/file/models/ox-asleep-fern/models/ox-asleep-fern/model.safetensors"
    came = api.call("GET", where)
    assert came.status_code == 200 and len(came.content) == api.server.own.size > 100_000
    api.session.headers.pop("Authorization")
    assert api.call("GET", where).status_code == 404
