"""The pictures of the panel *Edits*: files of the results and of the album, and of nowhere else.

GET  edits/ID/picture   the file as it came: PNG, JPEG or WebP by its content
GET  edits/ID/before    a JPEG of the picture that it was made from
GET  edits/ID/thumb     a small WebP, made at the first request and kept
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from .. import host
from ..album import notes
from ..album.folder import make_part, read_inside
from ..oxen.private_files import replace_file
from . import shown_edits
from .answers import answering_with
from .guard import Refused, check_viewer
from .public_ids import EditId
from .shown_edits import ShownEdit

logger = logging.getLogger(__name__)

# Nothing in a picture is to be carried out, whatever it is; an id names one picture for good.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, max-age=86400",
}
_SIGNS = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}
# Not ComfyUI's own threads: a grid asks for many at once.
_threads = ThreadPoolExecutor(2, thread_name_prefix="kontext-bridge pictures")


@dataclass(frozen=True)
class PictureKind:
    """A picture of an edit, what it is called in a file name, and what is said where there is none."""

    give: Callable[[Path, ShownEdit], bytes | None]
    name: str
    missing: str


def add_to(table: web.RouteTableDef, prefix: str) -> None:
    kinds = {
        "picture": PictureKind(shown_edits.picture, "kontext", "This edit's picture is not on this machine any more."),
        "before": PictureKind(shown_edits.before, "before", "The picture before this edit was not kept."),
        "thumb": PictureKind(_thumbnail, "small", "There is no picture of this edit."),
    }
    for path, kind in kinds.items():
        table.get(f"{prefix}edits/{{edit}}/{path}")(answering_with(_giving(kind)))


def _giving(kind: PictureKind) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def give(request: web.Request) -> web.Response:
        check_viewer(request)
        id = EditId.read(request.match_info["edit"])

        def look() -> bytes | None:
            home = host.user_folder()
            found = None if id is None else shown_edits.find(home, id)
            return None if found is None else kind.give(home, found)

        data = await asyncio.get_running_loop().run_in_executor(_threads, look)
        media_type = None if data is None else _media_type(data)
        if data is None or media_type is None:
            raise Refused(404, kind.missing)
        name = f"{kind.name}-{id}.{media_type.partition('/')[2]}"
        headers = {**_HEADERS, "Content-Disposition": f'inline; filename="{name}"'}
        return web.Response(body=data, content_type=media_type, headers=headers)

    return give


def _thumbnail(home: Path, found: ShownEdit) -> bytes | None:
    folder, name = home / "album" / notes.THUMBNAILS, f"{found.id}.webp"
    kept = read_inside(folder, name, shown_edits.MOST_BYTES)
    if kept is not None:
        return kept
    data = shown_edits.picture(home, found)
    if data is None or _media_type(data) is None:
        return None
    from ..album.small import thumbnail
    from ..imaging.errors import ImageError

    try:
        made = thumbnail(data)
    except ImageError as error:
        logger.debug("No thumbnail of %s: %s", found.id, error)
        return None
    try:
        replace_file(make_part(home / "album", notes.THUMBNAILS) / name, made)
    except OSError as error:  # it is made again the next time
        logger.debug("The thumbnail of %s was not kept: %s", found.id, error)
    return made


def _media_type(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for sign, kind in _SIGNS.items() if data.startswith(sign)), None)
