"""Reads hostile answers the way the pack does, each in a forked process, and tells what it took.

Reads one JSON case from standard input a line: {"name", "how", "url"}, and runs several at once. Writes one JSON line
each: the error's class and text, how far the process's peak memory rose, and the seconds.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable

from kontext_bridge.imaging.codec import decode
from kontext_bridge.imaging.errors import ImageError
from kontext_bridge.oxen.api.events import EventStream
from kontext_bridge.oxen.api.replies import read_rows
from kontext_bridge.oxen.control import Control
from kontext_bridge.oxen.credentials import Account
from kontext_bridge.oxen.errors import OxenError
from kontext_bridge.oxen.http import fetch, transport
from kontext_bridge.oxen.http.fetch import Fetcher, FetchLimits
from kontext_bridge.oxen.http.transport import Transport

SECONDS = 2.0
fetch.READ_SECONDS = fetch.CONNECT_SECONDS = transport.CONNECT_SECONDS = SECONDS


def download(url: str) -> None:
    """As URI to Image does, with loopback allowed so that the server can be reached at all."""
    own = Account(url.rsplit("/", 1)[0], None)
    fetcher = Fetcher(Control(), account=own, limits=FetchLimits(max_seconds=SECONDS))
    decode(fetcher.fetch(url))


def reply(url: str) -> None:
    base, path = url.rsplit("/", 1)
    connection = Transport(Account(base, "k" * 40), Control())
    read_rows(connection.send("GET", f"/{path}", seconds=SECONDS).json())


def paid(url: str) -> None:
    base, path = url.rsplit("/", 1)
    connection = Transport(Account(base, "k" * 40), Control())
    read_rows(connection.send("POST", f"/{path}", json={}, paid=True, seconds=SECONDS).json())


def events(url: str) -> None:
    base, path = url.rsplit("/", 1)
    connection = Transport(Account(base, "k" * 40), Control())
    stream = EventStream(connection, silent_seconds=SECONDS)
    get = connection.session.get
    connection.session.get = lambda _url, **options: get(f"{base}/{path}", **options)  # type: ignore[method-assign]
    stream._read_one_stream()


WAYS: dict[str, Callable[[str], None]] = {"download": download, "reply": reply, "paid": paid, "events": events}


AT_ONCE = 8  # they mostly wait
# Longer than any answer may take; a process that is still there then is ended from outside.
PATIENCE = 30


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def tell(case: dict[str, str]) -> dict[str, object]:
    before, since = _peak(), time.monotonic()
    try:
        WAYS[case["how"]](case["url"])
        kind, text = "", ""
    except (OxenError, ImageError) as error:
        kind, text = type(error).__name__, str(error)
    seconds = time.monotonic() - since
    return {**case, "error": kind, "text": text, "mib": (_peak() - before) / 2**20, "seconds": seconds}


def _start(line: str) -> int:
    child = os.fork()
    if child == 0:
        signal.alarm(PATIENCE)
        answer = json.dumps(tell(json.loads(line)))
        os.write(sys.stdout.fileno(), answer.encode() + b"\n")
        os._exit(0)
    return child


def _await_one(running: dict[int, str]) -> None:
    child, status = os.wait()
    line = running.pop(child)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        ended = {**json.loads(line), "error": "no end", "text": "", "mib": 0.0, "seconds": PATIENCE}
        os.write(sys.stdout.fileno(), json.dumps(ended).encode() + b"\n")
    elif status:
        sys.exit(f"{line} ended with {status}")


def main() -> None:
    running: dict[int, str] = {}
    for line in sys.stdin:
        running[_start(line)] = line
        if len(running) == AT_ONCE:
            _await_one(running)
    while running:
        _await_one(running)


if __name__ == "__main__":
    main()
