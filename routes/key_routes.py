"""The key: set, tested, removed, and never shown.

GET     key       whether there is one, where from, its last four characters
POST    key       {"key": "…"}: writes it to the pack's own file, where the next run finds it
DELETE  key       removes that file
POST    key/test  {}: asks Oxen.ai once whose key it is, which costs nothing
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from .. import host
from ..oxen.credentials import KEY_FILE, find_account, find_base_url, keep_key, places_of_key
from ..oxen.errors import Misconfigured
from ..oxen.key_file import remove_key_file
from .answers import answering, beside
from .bodies import read_object
from .guard import Refused, check_reader, check_writer

if TYPE_CHECKING:
    from ..oxen.credentials import Account

_TEST_SECONDS = 10.0
# Of a shorter key, four characters would be too much of it.
_SHORTEST = 8
_testing = threading.Lock()


def add_to(table: web.RouteTableDef, prefix: str) -> None:
    table.get(f"{prefix}key")(answering(show))
    table.post(f"{prefix}key")(answering(save))
    table.delete(f"{prefix}key")(answering(remove))
    table.post(f"{prefix}key/test")(answering(test))


async def show(request: web.Request) -> dict[str, Any]:
    check_reader(request)
    return await beside(lambda: _state(host.user_folder()))


async def save(request: web.Request) -> dict[str, Any]:
    check_writer(request)
    key = (await read_object(request, frozenset({"key"}))).get("key")
    if not isinstance(key, str):
        raise Refused(400, "The body must name a key, as a text.")

    def work() -> dict[str, Any]:
        folder = host.user_folder()
        find_base_url()  # with an unusable one no key is looked for
        keep_key(folder, key)
        return _state(folder)

    return await beside(work)


async def remove(request: web.Request) -> dict[str, Any]:
    check_writer(request)

    def work() -> dict[str, Any]:
        folder = host.user_folder()
        remove_key_file(folder / KEY_FILE)
        return _state(folder)

    return await beside(work)


async def test(request: web.Request) -> dict[str, Any]:
    check_writer(request)
    await read_object(request, frozenset())
    return await beside(lambda: _test(find_account(host.user_folder())))


def _state(folder: Path) -> dict[str, Any]:
    """Whether a key is set, in which of the places, and the last four characters of the one in use."""
    used: dict[str, Any] = {"set": False, "from": None, "source": None, "last_four": None}
    trouble: str | None = None
    places = []
    for place in places_of_key(folder, find_base_url()):
        key, wrong = None, None
        try:
            key = place.read()
        except Misconfigured as error:
            wrong = error.message
        if used["from"] is None and (key or wrong):
            # what cannot be used stops a run all the same, rather than have it use another account's key
            trouble = wrong
            last = key[-4:] if key and len(key) >= _SHORTEST else None
            used = {"set": bool(key), "from": place.name, "source": place.source, "last_four": last}
        places.append({"name": place.name, "source": place.source, "set": bool(key), "trouble": wrong})
    return {**used, "trouble": trouble, "places": places}


def _test(account: Account) -> dict[str, Any]:
    """What Oxen.ai says of the key, asked once: good, refused, or unknown, in words."""
    if not account.key:
        return {"result": "none", "text": "There is no key to test."}
    if not _testing.acquire(blocking=False):
        raise Refused(429, "A test is under way already.")
    try:
        from ..oxen.api.whose import ask_whose_key

        word = ask_whose_key(account, _TEST_SECONDS)
    finally:
        _testing.release()
    return {"result": word.result, "text": word.text}
