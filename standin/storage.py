"""Repositories and the files in them, as far as handing over a picture needs them."""

from __future__ import annotations

from dataclasses import dataclass, field

USERNAME = "bessie"
# A public repository that exists from the start, so that an upload can be tried at once.
PUBLIC_REPO = "kontext-inputs"


@dataclass
class Files:
    """repos: whether each (namespace, name) is public. blobs: bytes by (namespace, name, path)."""

    repos: dict[tuple[str, str], bool] = field(default_factory=lambda: {(USERNAME, PUBLIC_REPO): True})
    blobs: dict[tuple[str, str, str], bytes] = field(default_factory=dict)

    def put(self, repo: tuple[str, str], path: str, data: bytes) -> None:
        """Keep a file; an older one under the same path is gone."""
        self.blobs[(repo[0], repo[1], path)] = data

    def locate(self, path: str) -> tuple[str, str, str] | None:
        """The file that /api/repos/{namespace}/{repo}/file/{branch}/{path} names; None for other paths."""
        parts = path.split("/", 7)
        if len(parts) != 8 or parts[1:3] != ["api", "repos"] or parts[5] != "file":
            return None
        return parts[3], parts[4], parts[7]


def multipart(body: bytes, content_type: str) -> list[tuple[str, str, bytes]]:
    """The parts of a multipart/form-data body as (name, filename or "", bytes).

    Raises ValueError where it is none.
    """
    kind, _, rest = content_type.partition(";")
    boundary = _attribute(rest, "boundary")
    if kind.strip().lower() != "multipart/form-data" or not boundary:
        raise ValueError("expected multipart/form-data with a boundary")
    parts = []
    for section in (b"\r\n" + body).split(b"\r\n--" + boundary.encode())[1:-1]:
        head, _, data = section.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        lines = head.decode("utf-8", "replace").split("\r\n")
        disposition = next((line for line in lines if line.lower().startswith("content-disposition:")), "")
        parts.append((_attribute(disposition, "name"), _attribute(disposition, "filename"), data))
    return parts


def _attribute(header: str, name: str) -> str:
    for piece in header.split(";"):
        key, _, value = piece.strip().partition("=")
        if key.lower() == name:
            return value.strip('"')
    return ""
