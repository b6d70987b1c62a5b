"""Identity, repositories and files: the routes for handing over a picture without a data URI."""

from __future__ import annotations

import hashlib
import uuid
from datetime import datetime, timezone
from typing import Any

from aiohttp import web

from .call import current_call
from .picture import media_type
from .samples import is_sample, sample
from .service import SERVICE, Service
from .storage import USERNAME, multipart

OXEN_VERSION = "0.52.0"
PRESIGNED_S = 3600.0


def _status(status: int, kind: str, text: str) -> web.Response:
    body = {"status": "error", "status_message": kind, "status_description": text, "oxen_version": OXEN_VERSION}
    return web.json_response(body, status=status)


def _missing(what: str) -> web.Response:
    return _status(404, "resource_not_found", f"{what} not found")


def _success(status_message: str, **more: Any) -> web.Response:
    return web.json_response({"status": "success", "status_message": status_message} | more)


async def me(request: web.Request) -> web.StreamResponse:
    """GET /api/users/me and /api/authorize."""
    user = {"username": USERNAME, "name": "Bessie", "email": "bessie@example.com"}
    return web.json_response({"user": user})


def _repo(request: web.Request) -> tuple[str, str]:
    return request.match_info["namespace"], request.match_info["repo"]


def _visible(request: web.Request, service: Service) -> bool:
    public = service.files.repos.get(_repo(request))
    return public is not None and (public or current_call().authorized)


def _described(repo: tuple[str, str], public: bool) -> dict[str, Any]:
    return {"namespace": repo[0], "name": repo[1], "is_public": public, "latest_commit": None}


async def get_repo(request: web.Request) -> web.StreamResponse:
    """GET /api/repos/{namespace}/{repo}: private ones exist for the key only."""
    service, repo = request.app[SERVICE], _repo(request)
    if not _visible(request, service):
        return _missing("repository")
    return _success("resource_found", repository=_described(repo, service.files.repos[repo]))


async def new_repo(request: web.Request) -> web.StreamResponse:
    """POST /api/repos: private unless `is_public` or `visibility` say otherwise."""
    service, body = request.app[SERVICE], current_call().record.json
    if not isinstance(body, dict) or not body.get("name"):
        return _status(400, "bad_request", "name is required")
    repo = (str(body.get("namespace") or USERNAME), str(body["name"]))
    if repo[0] != USERNAME:
        return _status(403, "forbidden", f"no write access to {repo[0]}")
    if repo in service.files.repos:
        return _status(409, "resource_exists", "repository exists")
    public = body.get("is_public") is True or body.get("visibility") == "public"
    service.files.repos[repo] = public
    return _success("resource_created", repository=_described(repo, public))


async def put_file(request: web.Request) -> web.StreamResponse:
    """PUT /api/repos/{namespace}/{repo}/file/{branch}/{path}: `file`, or `files[]` into a directory."""
    service, repo = request.app[SERVICE], _repo(request)
    if repo not in service.files.repos or request.match_info["branch"] != "main":
        return _missing("repository or branch")
    try:
        parts = multipart(current_call().body, request.headers.get("Content-Type", ""))
    except ValueError as e:
        return _status(400, "bad_request", str(e))
    single = [part for part in parts if part[0] == "file"]
    several = [part for part in parts if part[0] == "files[]"]
    if single and several:
        return _status(400, "bad_request", "Ambiguous multipart payload: use either `file` or `files[]`, not both")
    if not single and not several:
        return _status(400, "bad_request", "Missing file data: expected `file` or `files[]` multipart parts")
    path = request.match_info["path"].strip("/")
    for _, filename, data in single or several:
        service.files.put(repo, path if single else f"{path}/{filename}", data)
    said = {name: data.decode("utf-8", "replace") for name, filename, data in parts if not filename}
    return _success("resource_created", oxen_version=OXEN_VERSION, commit=_commit(said))


def _commit(said: dict[str, str]) -> dict[str, Any]:
    return {
        "id": hashlib.sha256(uuid.uuid4().bytes).hexdigest()[:32],
        "parent_ids": [],
        "message": said.get("message", ""),
        "author": said.get("name", USERNAME),
        "email": said.get("email", ""),
        "timestamp": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


async def get_file(request: web.Request) -> web.StreamResponse:
    """GET of the same path: public, or with the key, or with a presigned query."""
    service = request.app[SERVICE]
    where = service.files.locate(request.path)
    if is_sample(where):
        return web.Response(body=sample(), content_type="image/png")
    opened = service.signer.opens(request.path, request.query)
    if opened is False:
        return _status(403, "forbidden", "the signature is wrong or has expired")
    if where not in service.files.blobs or not (opened or _visible(request, service)):
        return _missing("file")
    blob = service.files.blobs[where]
    return web.Response(body=blob, content_type=media_type(blob))


async def delete_file(request: web.Request) -> web.StreamResponse:
    """DELETE of the same path."""
    service = request.app[SERVICE]
    where = service.files.locate(request.path)
    if where is None or service.files.blobs.pop(where, None) is None:
        return _missing("file")
    return _success("resource_deleted", oxen_version=OXEN_VERSION, commit=_commit({}))


async def add_context(request: web.Request) -> web.StreamResponse:
    """POST /api/repos/{namespace}/{repo}/workbench/context: the workbench's own upload."""
    service, repo = request.app[SERVICE], _repo(request)
    if repo not in service.files.repos:
        return _missing("repository")
    try:
        parts = multipart(current_call().body, request.headers.get("Content-Type", ""))
    except ValueError as e:
        return _status(400, "bad_request", str(e))
    files = [part for part in parts if part[0] == "file"]
    if not files:
        return _status(400, "bad_request", "Missing file data: expected a `file` part")
    directory = next((data.decode() for name, _, data in parts if name == "directory"), "") or "oxen/context"
    path = f"{directory.strip('/')}/{files[0][1] or uuid.uuid4().hex}"
    service.files.put(repo, path, files[0][2])
    return web.json_response({"status": "success", "asset_path": path, "uuid": str(uuid.uuid4())})


async def presign(request: web.Request) -> web.StreamResponse:
    """GET /api/repos/{namespace}/{repo}/file/presigned_url/main/{path}: an address that needs no key."""
    service, (namespace, name) = request.app[SERVICE], _repo(request)
    path = request.match_info["path"]
    if (namespace, name, path) not in service.files.blobs:
        return _missing("file")
    signed = service.signer.sign(f"/api/repos/{namespace}/{name}/file/main/{path}", PRESIGNED_S)
    return web.json_response({"url": service.url + signed})
