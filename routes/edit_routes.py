"""What the panel *Edits* shows, in JSON.

GET  edits              ?search=: {"ids": […], "more": false}: all that came, newest first
GET  edits/now          {"spent", "limit", "running": […], "owed": […], "stamp"}; the stamp changes with the ids
GET  edits/ID           all that is known of an edit, and whether its picture, the one before and the graph are here
GET  edits/ID/graph     {"graph", "node"}: the workflow that it was made in, and the node
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from .. import host
from . import shown_edits
from .answers import answering, beside
from .guard import Refused, check_viewer
from .public_ids import EditId
from .shown_edits import ShownEdit

T = TypeVar("T")
_MOST_SEARCHED = 200


def add_to(table: web.RouteTableDef, prefix: str) -> None:
    table.get(f"{prefix}edits")(answering(show_all))
    table.get(f"{prefix}edits/now")(answering(show_now))
    table.get(f"{prefix}edits/{{edit}}")(answering(show_one))
    table.get(f"{prefix}edits/{{edit}}/graph")(answering(show_graph))


async def show_all(request: web.Request) -> dict[str, Any]:
    check_viewer(request)
    search = request.query.get("search", "").strip()
    if len(search) > _MOST_SEARCHED:
        raise Refused(400, f"A search of more than {_MOST_SEARCHED} characters is not done.")
    return await beside(lambda: shown_edits.listed(host.user_folder(), search))


async def show_now(request: web.Request) -> dict[str, Any]:
    check_viewer(request)
    return await beside(lambda: shown_edits.now(host.user_folder()))


async def show_one(request: web.Request) -> dict[str, Any]:
    return await of_edit(request, shown_edits.told)


async def show_graph(request: web.Request) -> dict[str, Any]:
    def work(home: Path, found: ShownEdit) -> dict[str, Any]:
        graph = shown_edits.graph(home, found)
        if graph is None:
            raise Refused(404, "The graph of this edit was not kept.")
        return {"graph": graph, "node": found.asked.node if found.asked else None}

    return await of_edit(request, work)


async def of_edit(request: web.Request, work: Callable[[Path, ShownEdit], T]) -> T:
    """What `work` gives for the edit that a request names; raises Refused for a stranger, and where there is none."""
    check_viewer(request)
    id = EditId.read(request.match_info["edit"])

    def look() -> T:
        home = host.user_folder()
        found = None if id is None else shown_edits.find(home, id)
        if found is None:
            raise Refused(404, "There is no such edit.")
        return work(home, found)

    return await beside(look)
