"""Spend limits, and how many edits go at once, as the next run will read them.

GET   limits   each with its value, and the environment variable that goes before what is set here, where there is one
POST  limits   {"usd_per_run": "0.50", "usd_per_day": null, "max_in_flight": 4}: writes them to settings.toml; null is
               the default
"""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path
from typing import Any

from aiohttp import web

from .. import host
from ..oxen.settings import Settings, load_settings, variable_of
from ..oxen.settings_file import change_settings
from .answers import answering, beside
from .bodies import read_object
from .guard import Refused, check_reader, check_writer

_NAMES = ("usd_per_run", "usd_per_day", "max_in_flight")


def add_to(table: web.RouteTableDef, prefix: str) -> None:
    table.get(f"{prefix}limits")(answering(show))
    table.post(f"{prefix}limits")(answering(save))


async def show(request: web.Request) -> dict[str, Any]:
    check_reader(request)
    return await beside(lambda: _state(host.user_folder()))


async def save(request: web.Request) -> dict[str, Any]:
    check_writer(request)
    changes = await read_object(request, frozenset(_NAMES))
    for name in changes:
        if _pinned(name):
            raise Refused(409, f"{variable_of(name)} decides {name} on this machine. Nothing was changed.")

    def work() -> dict[str, Any]:
        folder = host.user_folder()
        load_settings(folder)  # a file that stops every run is mended by hand first
        change_settings(folder, changes)
        return _state(folder)

    return await beside(work)


def _state(folder: Path) -> dict[str, Any]:
    settings, default = load_settings(folder), Settings()
    return {
        name: {
            "value": _plain(getattr(settings, name)),
            "default": _plain(getattr(default, name)),
            "variable": variable_of(name) if _pinned(name) else None,
        }
        for name in _NAMES
    }


def _pinned(name: str) -> bool:
    return bool(os.environ.get(variable_of(name), "").strip())


def _plain(value: int | Decimal | None) -> int | str | None:
    return format(value, "f") if isinstance(value, Decimal) else value
