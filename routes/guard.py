"""Who may ask: the page that ComfyUI itself served, where it serves one person.

Any page that a browser shows can send a request to this machine. A browser says with `Origin` where a request that
changes something comes from, and no page can say otherwise; a form cannot send JSON or DELETE. What ComfyUI's own
--enable-cors-header allows is not asked: it is for other routes. A name that a stranger owns, and lets point to this
machine (DNS rebinding), has the server's pages for its own: a public name counts with https alone, whose certificate a
stranger does not have.
"""

from __future__ import annotations

import ipaddress
import re

from aiohttp import web

from .. import host
from ..oxen.credentials import KEY_FILE, KEY_VARIABLE
from ..oxen.errors import OxenError
from ..oxen.settings import load_settings, variable_of

_ORIGIN = re.compile(r"(https?)://([^/?#@\\\s]+)", re.I)
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
# Names that nobody can have in the public DNS.
_OWN_NETWORK = {"localhost", "local", "lan", "home", "internal", "intranet", "corp", "private", "arpa"}
_ELSEWHERE = (
    f"The key can be set outside this page: in the environment variable {KEY_VARIABLE} before ComfyUI starts, or as "
    f"the file {KEY_FILE} in ComfyUI's folder user/__{host.FOLDER_NAME}."
)


class Refused(Exception):
    """A request that is not carried out: the HTTP status, and why in words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def check_reader(request: web.Request) -> None:
    """Raises Refused for a request of another page, and where ComfyUI serves several users."""
    _check_users()
    if not _sites(request) <= {"same-origin", "none"}:
        raise _another_page()
    if "Origin" in request.headers:
        _check_origin(request)


def check_viewer(request: web.Request) -> None:
    """`check_reader` for what was made here, which no page under a stranger's name may see.

    To such a name, over plain http, a browser says nothing of the site that asks; over https it does.
    """
    check_reader(request)
    hosts = request.headers.getall("Host", [])
    if len(hosts) != 1:
        raise _another_page()
    if not _sites(request) and not _is_own(hosts[0].lower()) and not _allowed():
        raise _public_name()


def check_writer(request: web.Request) -> None:
    """Raises Refused unless the request comes from a page of this very server, by the browser's own word."""
    _check_users()
    if not _sites(request) <= {"same-origin"}:
        raise _another_page()
    _check_origin(request)


def _sites(request: web.Request) -> set[str]:
    return {site.strip().lower() for site in request.headers.getall("Sec-Fetch-Site", [])}


def _check_users() -> None:
    if host.several_users() and not _allowed():
        raise Refused(
            403,
            "ComfyUI serves several users (--multi-user), and the key, the limits and the edits are the same for all "
            f"of them. Who runs the machine can allow this page: {variable_of('allow_key_page')}=true before ComfyUI "
            f"starts, or allow_key_page = true in settings.toml. {_ELSEWHERE}",
        )


def _check_origin(request: web.Request) -> None:
    origins, hosts = request.headers.getall("Origin", []), request.headers.getall("Host", [])
    if len(origins) != 1 or len(hosts) != 1:
        raise _another_page()
    found = _ORIGIN.fullmatch(origins[0])
    if not found:
        raise _another_page()
    scheme, here = found[1].lower(), hosts[0].lower()
    if found[2].lower().removesuffix(_DEFAULT_PORTS[scheme]) != here.removesuffix(_DEFAULT_PORTS[scheme]):
        raise _another_page()
    if scheme == "http" and not _is_own(here) and not _allowed():
        raise _public_name()


def _is_own(authority: str) -> bool:
    """Whether a host is an address, or a name that only the own machine or network gives."""
    name = re.sub(r":\d*$", "", authority)
    if name.startswith("["):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        labels = name.rstrip(".").split(".")
        return len(labels) == 1 or labels[-1] in _OWN_NETWORK
    return True


def _allowed() -> bool:
    try:
        return load_settings(host.user_folder()).allow_key_page
    except (OxenError, OSError):
        return False


def _public_name() -> Refused:
    return Refused(
        403,
        "This server is reached under a public name and without https, where no page can be told from another's. "
        f"Use its IP address, or localhost, or https. Who runs the machine can allow it: "
        f"{variable_of('allow_key_page')}=true before ComfyUI starts, or allow_key_page = true in settings.toml. "
        f"{_ELSEWHERE}",
    )


def _another_page() -> Refused:
    return Refused(
        403,
        "The request does not come from this server's own page: its Origin is missing or is not its Host. A proxy in "
        f"between may change one of them. {_ELSEWHERE}",
    )
