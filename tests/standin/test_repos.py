"""Identity, repositories, uploads, presigned addresses, models."""

from __future__ import annotations

import base64

import pytest
import requests
from patience import PATIENCE

from .conftest import data_uri

PICTURE = base64.b64decode(data_uri().partition(",")[2])
REPO = "/api/repos/bessie/kontext-inputs"


def put(api, path, field="file", name="ox.png", data=PICTURE, **text):
    return api.call("PUT", path, files={field: (name, data, "image/png")}, data=text)


@pytest.mark.parametrize("path", ["/api/users/me", "/api/authorize"])
def test_the_key_has_a_name(api, path):
    assert api.call("GET", path).json()["user"]["username"] == "bessie"


def test_a_file_in_a_public_repository_is_open_to_everyone_and_to_the_edit(api):
    reply = put(api, f"{REPO}/file/main/in/ox.png", message="An ox", name="ox.png", email="b@example.com")
    assert reply.status_code == 200
    assert reply.json()["commit"]["message"] == "An ox"
    url = f"{api.server.url}{REPO}/file/main/in/ox.png"
    fetched = requests.get(url, timeout=PATIENCE)
    assert (fetched.content, fetched.headers["Content-Type"]) == (PICTURE, "image/png")
    assert api.edit(input_image=url).ok


def test_a_file_part_of_any_bytes_comes_back_the_same(api):
    data = bytes(range(256)) * 300 + b"\r\n--x\r\n\r\n--"
    put(api, f"{REPO}/file/main/raw.bin", data=data)
    assert requests.get(f"{api.server.url}{REPO}/file/main/raw.bin", timeout=PATIENCE).content == data


def test_several_files_go_into_a_directory(api):
    put(api, f"{REPO}/file/main/in", field="files[]", name="a.png")
    assert requests.get(f"{api.server.url}{REPO}/file/main/in/a.png", timeout=PATIENCE).content == PICTURE


def test_both_kinds_of_part_or_none_are_refused(api):
    both = {"file": ("a.png", PICTURE), "files[]": ("b.png", PICTURE)}
    assert "Ambiguous" in api.call("PUT", f"{REPO}/file/main/x", files=both).json()["status_description"]
    neither = api.call("PUT", f"{REPO}/file/main/x", files={"other": ("a.png", PICTURE)})
    assert "Missing file data" in neither.json()["status_description"]
    assert api.call("PUT", f"{REPO}/file/main/x", data=b"raw").status_code == 400


def test_a_deleted_file_is_gone(api):
    put(api, f"{REPO}/file/main/ox.png")
    assert api.call("DELETE", f"{REPO}/file/main/ox.png").ok
    assert api.call("GET", f"{REPO}/file/main/ox.png").status_code == 404


@pytest.mark.parametrize("path", ["/api/repos/bessie/nope/file/main/a", f"{REPO}/file/other/a"])
def test_an_unknown_repository_or_branch_takes_no_upload(api, path):
    assert put(api, path).status_code == 404


@pytest.mark.parametrize(
    ("body", "public"),
    [
        ({"name": "pen"}, False),
        ({"name": "pen", "is_public": True}, True),
        ({"name": "pen", "visibility": "public"}, True),
        ({"name": "pen", "namespace": "bessie", "visibility": "private", "workbench": True}, False),
    ],
)
def test_a_new_repository_is_as_public_as_asked(api, body, public):
    reply = api.call("POST", "/api/repos", json=body)
    assert reply.json()["repository"]["is_public"] is public
    assert api.call("POST", "/api/repos/", json=body).status_code == 409
    put(api, "/api/repos/bessie/pen/file/main/ox.png")
    for path in ("/api/repos/bessie/pen", "/api/repos/bessie/pen/file/main/ox.png"):
        assert requests.get(api.server.url + path, timeout=PATIENCE).status_code == (200 if public else 404)
        assert api.call("GET", path).status_code == 200


def test_a_private_file_cannot_be_the_input_but_a_presigned_one_can(api):
    assert api.call("GET", "/api/repos/bessie/playground").status_code == 404
    api.call("POST", "/api/repos/", json={"name": "playground", "visibility": "private", "workbench": True})
    assert api.call("GET", "/api/repos/bessie/playground").ok
    reply = api.call(
        "POST",
        "/api/repos/bessie/playground/workbench/context",
        files={"file": ("ox.png", PICTURE)},
        data={"directory": "oxen/context"},
    ).json()
    assert (reply["status"], reply["asset_path"]) == ("success", "oxen/context/ox.png")
    private = f"{api.server.url}/api/repos/bessie/playground/file/main/oxen/context/ox.png"
    assert "403 Client Error: Forbidden for url" in api.edit(input_image=private).text
    signed = api.call("GET", "/api/repos/bessie/playground/file/presigned_url/main/oxen/context/ox.png").json()["url"]
    assert requests.get(signed, timeout=PATIENCE).content == PICTURE
    assert requests.get(signed.replace("signature=", "signature=0"), timeout=PATIENCE).status_code == 403
    assert api.edit(input_image=signed).ok
    missing = api.call("GET", "/api/repos/bessie/playground/file/presigned_url/main/none.png")
    assert missing.status_code == 404


def test_others_namespaces_are_closed(api):
    assert api.call("POST", "/api/repos", json={"name": "x", "namespace": "elsie"}).status_code == 403
    assert api.call("POST", "/api/repos", json={}).status_code == 400


def test_models_are_public_and_carry_schema_and_price(api):
    def get(path):
        return requests.get(api.server.url + path, timeout=PATIENCE).json()

    model = get("/api/ai/models/flux-kontext-dev")
    assert model["pricing"] == {"method": "per_image", "cost_per_image": 0.04}
    assert model["request_schema"]["properties"]["aspect_ratio"]["default"] == "16:9"
    assert model["request_schema"]["required"] == ["prompt", "input_image"]
    listed = get("/api/ai/models")
    assert listed["object"] == "list"
    assert model in listed["data"]
    assert [m["id"] for m in get("/api/ai/models/search?search=KONTEXT")["data"]] == ["flux-kontext-dev"]
    assert get("/api/ai/models?developer_name=Nobody")["data"] == []
    assert get("/api/ai/models/nope") == {"error": {"message": "Model not found: nope"}}
