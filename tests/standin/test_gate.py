"""What every request passes: the User-Agent, the key, the record."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest
import requests
from kontext_bridge.standin import Fault, Faults, StandIn
from kontext_bridge.standin.records import Bearer
from patience import PATIENCE


@pytest.mark.parametrize("agent", ["ComfyUI-Oxen/0.1.0", "comfyui-oxen-nodes", "Oxen/0.35.9 (linux)", "x/OXEN"])
def test_an_agent_that_passes_for_an_old_cli_is_told_to_update(api, agent):
    reply = api.call("GET", "/api/users/me", headers={"User-Agent": agent})
    assert reply.status_code == 426
    assert reply.json()["error"]["type"] == "update_required"


@pytest.mark.parametrize("agent", [None, "kontext-bridge/0.1.0", "X-Oxen/1.0.0", "Postman oxen", "Oxen/0.36.0"])
def test_other_user_agents_are_let_through(api, agent):
    assert api.call("GET", "/api/users/me", headers={"User-Agent": agent}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/ai/images/edit"),
        ("POST", "/api/ai/queue"),
        ("GET", "/api/ai/queue"),
        ("GET", "/api/ai/queue/x"),
        ("DELETE", "/api/ai/queue/x"),
        ("GET", "/api/events"),
        ("GET", "/api/ai/generations"),
        ("GET", "/api/ai/generations/x"),
        ("GET", "/api/users/me"),
        ("GET", "/api/authorize"),
        ("POST", "/api/repos"),
        ("PUT", "/api/repos/bessie/kontext-inputs/file/main/a.png"),
        ("POST", "/api/repos/bessie/kontext-inputs/workbench/context"),
        ("GET", "/api/repos/bessie/kontext-inputs/file/presigned_url/main/a.png"),
    ],
)
@pytest.mark.parametrize("key", [None, "Bearer wrong", "standin-key"])
def test_a_missing_or_wrong_key_is_refused(api, method, path, key):
    reply = requests.request(method, api.server.url + path, headers={"Authorization": key}, timeout=PATIENCE)
    assert reply.status_code == 401
    assert reply.json()["error"]["type"] == "unauthenticated"
    assert reply.json()["status"] == "error"
    assert api.server.billed == []


@pytest.mark.parametrize("path", ["/api/images/edit", "/", "/api/events/"])
def test_routes_it_does_not_know_are_404(api, path):
    reply = api.call("POST", path, json=api.params)
    assert reply.status_code == 404
    assert reply.json()["error"]["type"] == "resource_not_found"
    assert api.server.requests[-1].route == "unknown"


def test_the_record_says_what_came_but_not_the_key(api):
    api.enqueue()
    requests.get(
        api.server.url + "/api/users/me?k=standin-key", headers={"Authorization": "Bearer x"}, timeout=PATIENCE
    )
    requests.get(api.server.url + "/api/ai/models", timeout=PATIENCE)
    first, second, third = api.server.requests
    assert (first.method, first.path, first.route) == ("POST", "/api/ai/queue", "enqueue")
    assert first.json == api.params
    assert first.body_bytes == int(first.headers["Content-Length"])
    assert [r.bearer for r in (first, second, third)] == [Bearer.RIGHT, Bearer.OTHER, Bearer.NONE]
    assert [r.carries_key for r in (first, second, third)] == [True, True, False]
    assert "standin-key" not in repr(api.server.requests) + repr(api.server.state())


def test_connections_are_counted_without_those_to_the_control_routes(api):
    for _ in range(3):
        api.row("x")
    requests.get(api.server.url + "/api/ai/models", timeout=PATIENCE)
    requests.get(api.server.url + "/_standin/state", timeout=PATIENCE)
    assert api.server.connections == 2
    assert [r.connection for r in api.server.requests] == [1, 1, 1, 2]


def test_a_client_that_dies_in_mid_body_is_recorded_and_not_billed(api):
    where = urlsplit(api.server.url)
    with socket.create_connection((where.hostname, where.port)) as sock:
        head = f"POST /api/ai/queue HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.server.key}\r\n"
        sock.sendall(head.encode() + b'Content-Length: 500\r\n\r\n{"model":')
        api.server.wait_for(lambda s: s.connections == 1)
    api.server.wait_for(lambda s: s.requests)
    assert api.server.requests[0].body_bytes == 0
    assert api.server.billed == []


def test_refused_connections_come_back_on_the_same_port(api):
    api.server.refuse_connections()
    with pytest.raises(requests.ConnectionError, match="refused"):
        api.row("x")
    api.server.accept_connections()
    assert api.row("x").status_code == 404


def test_a_behaviour_decides_for_one_request_and_its_jobs(serve):
    def behaviour(request):
        prompt = (request.json or {}).get("prompt", "") if request.method == "POST" else ""
        if prompt == "refuse":
            return Faults(rate_limited=True)
        return Faults(run_fails="as told") if prompt == "fail" else None

    api = serve(behaviour=behaviour)
    assert api.enqueue(prompt="refuse").status_code == 429
    assert api.ended(api.submit(prompt="fail"))["error_message"] == "as told"
    assert api.ended(api.submit())["status"] == "succeeded"


def test_a_fault_can_be_kept_to_some_prompts_and_moved_to_another_route(serve):
    api = serve(run_fails=Fault("flagged", match="ox 3", times=1), rate_limited=Fault(1, route="row", after=1))
    jobs = [api.submit(prompt=f"ox {n}") for n in range(5)]
    statuses = [api.row(jobs[0]).status_code, api.row(jobs[0]).status_code]
    assert statuses == [200, 429]
    api.server.wait_for(lambda s: all(j.status.terminal for j in s.jobs.values()))
    ended = [api.server.jobs[job] for job in jobs]
    assert [job.error_message for job in ended] == [None, None, None, "flagged", None]


def test_an_unknown_switch_is_refused(api):
    with pytest.raises(KeyError, match="no such fault: rate_limit;"):
        api.server.set(rate_limit=True)


def test_outside_the_with_block_it_says_so():
    with pytest.raises(RuntimeError, match="not running"):
        _ = StandIn().url


def test_what_does_not_happen_is_reported_with_what_was_seen(api):
    api.submit()
    with pytest.raises(TimeoutError, match="'enqueue': 1"):
        api.server.wait_for(lambda s: len(s.jobs) == 2, timeout=0.05)
