"""What a workflow from a stranger cannot do: read a file, reach inside, aim the key elsewhere, fill the memory."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge.headless.__main__ import main, object_info, pack_nodes
from kontext_bridge.oxen.api.client import Client
from kontext_bridge.oxen.credentials import Account
from kontext_bridge.oxen.errors import InvalidParameters, OxenError
from kontext_bridge.standin import Bearer, StandIn, Timing
from matrix_runner import KEY, files_with_a_piece

SECRET = "the content of a private file"
Run = Callable[[dict[str, Any]], tuple[int, str]]


@pytest.fixture
def service() -> Iterator[StandIn]:
    with StandIn(timing=Timing(0.02, 0.05), key=KEY) as service:
        yield service


@pytest.fixture
def run(tmp_path: Path, service: StandIn, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a workflow as the command line does; gives the exit status and all that was printed, at DEBUG."""
    monkeypatch.setenv("OXEN_API_KEY", KEY)
    monkeypatch.setenv("OXEN_BASE_URL", service.url)
    monkeypatch.setenv("KONTEXT_BRIDGE_HOME", str(tmp_path / "home"))

    def run_it(workflow: dict[str, Any]) -> tuple[int, str]:
        path = tmp_path / "workflow.json"
        path.write_text(json.dumps(workflow))
        status = main([str(path), "--output", str(tmp_path / "out"), "--debug"])
        printed = "".join(capfd.readouterr())
        (tmp_path / "printed.txt").write_text(printed)
        return status, printed

    return run_it


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def reading(uri: str) -> dict[str, Any]:
    read = node("KontextURIToImage", uri=uri)
    return {"read": read, "save": node("SaveImage", images=["read", 0], filename_prefix="stolen")}


def test_no_uri_reads_a_file_or_reaches_inside(tmp_path: Path, run: Run) -> None:
    private = tmp_path / "private.txt"
    private.write_text(SECRET)
    encoded = base64.b64encode(SECRET.encode()).decode()
    with socket.create_server(("127.0.0.1", 0)) as inside:
        inside.settimeout(0.05)
        port = inside.getsockname()[1]
        uris = [str(private), f"file://{private}", f"FILE://localhost{private}", "private.txt", "~/.netrc"]
        uris += ["data:text/plain,secret", f"data:text/plain;base64,{encoded}", f"data:image/png;base64,{encoded}"]
        uris += [f"http://127.0.0.1:{port}/", f"http://2130706433:{port}/", f"http://[::ffff:127.0.0.1]:{port}/"]
        for uri in uris:
            status, printed = run(reading(uri))
            assert status == 1 and "Node read" in printed and SECRET not in printed, (uri, printed)
        with pytest.raises(TimeoutError):
            inside.accept()
    assert not list(tmp_path.rglob("stolen*"))


def test_a_uri_at_the_service_itself_never_takes_the_key_along(tmp_path: Path, run: Run, service: StandIn) -> None:
    status, printed = run(reading(f"{service.url}/api/users/me"))
    assert status == 1 and "401" in printed
    assert [request.bearer for request in service.requests] == [Bearer.NONE]
    assert not files_with_a_piece(tmp_path)


def test_no_node_has_an_input_for_a_key_or_a_host() -> None:
    suspicious = ("key", "token", "secret", "password", "base_url", "host", "endpoint", "proxy", "header", "path")
    for name, info in object_info(asyncio.run(pack_nodes())).items():
        inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
        assert not [widget for widget in inputs if any(word in widget.lower() for word in suspicious)], name


@pytest.mark.parametrize("text", ["../../users/me", "a/../../users/me", "..%2f..%2fusers%2fme", "id?x=1", "id#x"])
def test_a_generation_id_cannot_lead_to_another_route(text: str, service: StandIn) -> None:
    client = Client(Account(service.url, KEY))
    for call in (client.row, client.past, client.cancel):
        with pytest.raises(InvalidParameters, match="not a generation id"):
            call(text)
    client.close()
    assert service.requests == []


def test_a_model_name_stays_below_the_models(service: StandIn) -> None:
    client = Client(Account(service.url, KEY))
    for name in ("../users/me", "..", ".", "../../repos", "a?b", "a#b"):
        with pytest.raises(OxenError):
            client.model(name)
    client.close()
    assert all(request.path.startswith("/api/ai/models/") for request in service.requests)
