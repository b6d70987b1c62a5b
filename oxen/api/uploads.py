"""Putting a picture where the service can fetch it, for when it refuses a data URI.

Two ways: a file in a public repository that the settings name (documented), or the presigned address of a file in
the user's playground, which is what the hub's own workbench uses (not documented, and so liable to change).
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any
from urllib.parse import quote

from ..errors import InvalidParameters, ReplyError, UnexpectedReply
from .client import Client

_BRANCH = "main"
_FOLDER = "kontext-bridge"
_PLAYGROUND = "playground"
_SECONDS = 120.0


def upload(client: Client, data: bytes, media_type: str, repository: str | None) -> str:
    """A URL from which the service can fetch the picture.

    data: a picture file. repository: NAMESPACE/NAME of a public repository to put it in for good, under a name
    nobody can guess; None uses the playground and an address that is valid for about an hour.
    Raises what the requests raise, with advice.
    """
    name = f"{hashlib.sha256(data).hexdigest()[:16]}-{secrets.token_hex(8)}.{media_type.rsplit('/', 1)[-1]}"
    try:
        if repository is not None:
            return _to_repository(client, data, media_type, repository, name)
        return _to_playground(client, data, media_type, name)
    except (InvalidParameters, ReplyError) as error:
        where = repository or "your Oxen playground"
        raise error.reworded(
            f"The picture could not be uploaded to {where}: {error.message} Set send_as to data URI, or name a "
            "public repository of yours as upload_repository in the settings. No edit was sent."
        ) from None


def _to_repository(client: Client, data: bytes, media_type: str, repository: str, name: str) -> str:
    path = f"/api/repos/{quote(repository)}/file/{_BRANCH}/{_FOLDER}/{name}"
    client.transport.send(
        "PUT",
        path,
        files={"file": (name, data, media_type)},
        data={"message": "Input of a Kontext edit", "name": "Kontext Bridge", "email": "kontext-bridge@localhost"},
        seconds=_SECONDS,
    )
    return client.account.base_url + path


def _to_playground(client: Client, data: bytes, media_type: str, name: str) -> str:
    user = quote(client.username(), safe="")
    repository = f"/api/repos/{user}/{_PLAYGROUND}"
    try:
        client.transport.send("GET", repository)
    except ReplyError as error:
        if error.status not in {403, 404}:
            raise
        body = {"name": _PLAYGROUND, "namespace": user, "description": "", "visibility": "private", "workbench": True}
        try:
            client.transport.send("POST", "/api/repos/", json=body)
        except InvalidParameters:
            client.transport.send("GET", repository)  # another picture of this batch may have been quicker
    stored = client.transport.send(
        "POST",
        f"{repository}/workbench/context",
        files={"file": (name, data, media_type)},
        data={"directory": _FOLDER},
        seconds=_SECONDS,
    ).json()
    redact = client.transport.redact.value
    asset = quote(_field(redact(stored), "asset_path"))
    signed = client.transport.send("GET", f"{repository}/file/presigned_url/{_BRANCH}/{asset}").json()
    return _field(redact(signed), "url")


def _field(reply: Any, name: str) -> str:
    value = reply.get(name) if isinstance(reply, dict) else None
    if not isinstance(value, str) or not value:
        raise UnexpectedReply(f"Oxen.ai's answer to the upload has no {name}.")
    return value
