"""What the pages in web/ ask of ComfyUI's server, under /kontext-bridge/. Nothing here runs before it is asked.

guard.py         who may ask: the page that ComfyUI itself served, where it serves one person
bodies.py        what is asked: one small JSON object
answers.py       what is answered: JSON that no cache keeps; an error in words, which repeats nothing of what was asked
key_routes.py    the key: set, tested, removed, and never shown
limit_routes.py  spend limits, and how many edits go at once
price_routes.py  the published price, which is no secret
public_ids.py    what an edit is called between the page and the server
shown_edits.py   past edits as the panel shows them, from the ledger and the album together
edit_routes.py   what runs, what is owed, what was made
picture_routes.py  their pictures, and no other file
job_routes.py    a job at Oxen.ai: cancelled, collected

An answer, a log line or an error never holds the key or a piece of it beyond its last four characters.
"""

from __future__ import annotations

import logging

from .. import host

logger = logging.getLogger(__name__)

PREFIX = "/kontext-bridge/"


def register() -> None:
    """Add the routes to ComfyUI's, while it starts; off ComfyUI, nothing."""
    table = host.route_table()
    if table is None:
        return
    if any(str(getattr(route, "path", "")).startswith(PREFIX) for route in table):
        # aiohttp would not start with a route that is there twice
        logger.warning("There are two copies of Kontext Bridge in custom_nodes. Remove one.")
        return
    from . import edit_routes, job_routes, key_routes, limit_routes, picture_routes, price_routes

    key_routes.add_to(table, PREFIX)
    limit_routes.add_to(table, PREFIX)
    price_routes.add_to(table, PREFIX)
    edit_routes.add_to(table, PREFIX)
    picture_routes.add_to(table, PREFIX)
    job_routes.add_to(table, PREFIX)
