"""Answers made to fill the memory or to hold a run up for ever are refused within bounds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hostile_server import ANSWERS, HostileServer

LIMIT_SECONDS = 600
EACH_SECONDS = 20
# Above what may be read: 64 MB of a download, 192 MB of an answer that holds a picture as text, 1 MB of an event.
MIB_ALLOWED = {"download": 160.0, "paid": 300.0, "reply": 300.0, "events": 40.0}
REFUSALS = {
    "download": {"UrlRefused", "ConnectionFailed", "ImageError", "ImageTooLarge"},
    "paid": {"OutcomeUnknown", "UnexpectedReply"},
    "reply": {"UnexpectedReply", "ConnectionFailed", "Upstream"},
    "events": {"UnexpectedReply"},
}
# Where what is hostile comes with a status that says no besides.
ALSO = {
    "download": {"ResultUnavailable"},
    "paid": {"Upstream"},
    "reply": set(),
    "events": {"Upstream", "ConnectionFailed"},
}
PICTURES = ("a PNG", "a GIF", "a JPEG", "a WebP")


def ways(name: str) -> tuple[str, ...]:
    if name.startswith("an event"):
        return ("events",)
    if name.startswith(("a redirect with", "trailers", "an error")):
        return ("download", "paid", "reply", "events")
    return ("download",) if name.startswith(PICTURES) else ("download", "paid", "reply")


WAYS = {name: ways(name) for name in ANSWERS}
CASES = [(name, how) for name, kinds in WAYS.items() for how in kinds]


def told_by(cases: list[dict[str, str]]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("hostile_client.py")],
        input="".join(json.dumps(case) + "\n" for case in cases),
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def told(tables: dict[str, list[str]]) -> dict[tuple[str, str], dict[str, Any]]:
    with HostileServer() as server:
        answers = told_by([{"name": name, "how": how, "url": f"{server.url}/{quote(name)}"} for name, how in CASES])
    found = {(answer["name"], answer["how"]): answer for answer in answers}
    tables["hostile answers: what refusing them took"] = [
        f"{name:<36} {how:<9} {a['error']:<16} {a['mib']:7.1f} MiB {a['seconds']:6.2f} s"
        for (name, how) in CASES
        if (a := found[name, how])
    ]
    return found


@pytest.mark.parametrize(("name", "how"), CASES)
def test_the_answer_is_refused_within_bounded_memory(
    name: str, how: str, told: dict[tuple[str, str], dict[str, Any]]
) -> None:
    answer = told[name, how]
    also = ALSO[how] if name.startswith(("an error", "a redirect with", "10")) else set()
    assert answer["error"] in REFUSALS[how] | also, answer
    assert answer["mib"] < MIB_ALLOWED[how], answer
    assert answer["seconds"] < EACH_SECONDS, answer
    assert "kkkkkkkkkkkk" not in answer["text"]
