"""The key as the real ComfyUI's page sets it: used by the next run, and in no other file of its folder."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from comfy_server import ComfyServer, comfy_server_with, comfyui
from kontext_bridge.standin import StandIn, Timing
from pack import REPOSITORY, TWINS, WORKFLOWS, read
from served import KEY, holding_the_key

pytestmark = pytest.mark.comfyui
ROUTE = "/api/kontext-bridge/key"


@pytest.fixture(scope="module")
def service() -> Iterator[StandIn]:
    with StandIn(timing=Timing(queued_s=0.01, processing_s=0.05), key=KEY) as running:
        yield running


def environment(service: StandIn, base: Path) -> dict[str, str]:
    """A machine with no key in any place."""
    return {"OXEN_BASE_URL": service.url, "OXEN_API_KEY": "", "OXEN_CONFIG_DIR": str(base / "oxen")}


def asked(server: ComfyServer, method: str, path: str, body: Any = None, origin: str | None = "") -> tuple[int, Any]:
    """What the server's own page is answered; origin: another page's, None names none."""
    headers = {"Content-Type": "application/json"} if body is not None else {}
    if origin is not None:
        headers |= {"Origin": origin or server.url, "Sec-Fetch-Site": "cross-site" if origin else "same-origin"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{server.url}{path}", data, headers, method=method)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as refused:
        text = refused.read()
        return refused.code, json.loads(text) if text else None


def test_a_saved_key_is_used_by_the_next_run_and_is_in_no_other_file(tmp_path: Path, service: StandIn) -> None:
    comfyui()
    base = tmp_path / "base"
    with comfy_server_with({"kontext-bridge": REPOSITORY}, base, environment(service, base)) as server:
        shutil.copy(WORKFLOWS / "kontext_example.png", base / "input")
        workflow = read(TWINS / "remote_edit.json")
        first = server.run(workflow)
        assert "No Oxen.ai key: Settings > Kontext Bridge." in json.dumps(first["status"])

        for origin in ("https://evil.example", None):
            assert asked(server, "POST", ROUTE, {"key": KEY}, origin)[0] == 403
        assert not list(base.rglob("oxen_api_key"))
        status, state = asked(server, "POST", ROUTE, {"key": KEY})
        assert (status, state["from"], state["last_four"]) == (200, "file", KEY[-4:])
        status, tested = asked(server, "POST", f"{ROUTE}/test", {})
        assert (status, tested["result"]) == (200, "good")
        done = server.run(workflow)
        assert done["status"]["status_str"] == "success", done["status"]["messages"]

        answers = [server.get(path) for path in ("/history", "/api/settings", "/object_info", "/system_stats")]
        answers += [state, tested, asked(server, "GET", ROUTE)[1]]
        assert holding_the_key(json.dumps([first, done, *answers]).encode()) == set()
    (key_file,) = base.rglob("oxen_api_key")
    assert key_file == base / "user" / "__kontext_bridge" / "oxen_api_key"
    assert key_file.read_text() == KEY + "\n" and key_file.stat().st_mode & 0o7777 == 0o600
    files = [path for path in base.rglob("*") if path.is_file() and path.relative_to(base).parts[0] != "custom_nodes"]
    assert [path for path in files if holding_the_key(path.read_bytes())] == [key_file]
    assert service.leaks == []


def test_several_users_and_a_cors_header_open_nothing(tmp_path: Path, service: StandIn) -> None:
    comfyui()
    base = tmp_path / "base"
    arguments = ("--multi-user", "--enable-cors-header", "*")
    packs = {"kontext-bridge": REPOSITORY, "kontext-bridge-copy": REPOSITORY}
    with comfy_server_with(packs, base, environment(service, base), arguments=arguments) as server:
        for method, body in (("GET", None), ("POST", {"key": KEY}), ("DELETE", None)):
            for origin in ("", "https://evil.example"):
                status, answer = asked(server, method, ROUTE, body, origin)
                assert status == 403 and "error" in answer
    assert not list(base.rglob("oxen_api_key"))
    log = (base / "log.txt").read_text()
    assert "two copies of Kontext Bridge" in log
    # Nodes of ComfyUI's own may lack a package.
    assert [line for line in log.splitlines() if "IMPORT FAILED" in line and "kontext-bridge" in line] == []
